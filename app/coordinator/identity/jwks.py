"""The issuer's public keys, fetched over HTTP (RFC 7517) and kept."""

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp
import orjson
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

#: Seconds that a fetch may take, and bytes that a key set may have.
_PATIENCE: Final = 5.0
_MAX_BYTES: Final = 256 * 1024

log = structlog.get_logger("scaimind.coordinator")


class KeysUnavailable(Exception):
    """The keys were never fetched, and cannot be fetched now."""


class KeySet:
    """The keys behind a URL. Everything runs on one event loop.

    Keys are fetched when the first one is asked for, again when they are
    older than `max_age`, and at once when an unknown one is asked for, though
    not within `cooldown` of the fetch before. However many wait, one fetch is
    under way. While the issuer is away the old keys are served.
    """

    def __init__(
        self, url: str, *, max_age: float, cooldown: float, clock: Callable[[], float]
    ) -> None:
        self._url = url
        self._max_age = max_age
        self._cooldown = cooldown
        self._clock = clock
        self._keys: dict[str, RSAKey] | None = None
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._fetch: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> RSAKey | None:
        """The RSA signing key of that id; None if the issuer has none. Raises KeysUnavailable."""
        if self._keys is None or self._clock() - self._fetched_at > self._max_age:
            await self._refresh()
        if self._keys is not None and kid not in self._keys:
            await self._refresh()
        if self._keys is None:
            raise KeysUnavailable
        return self._keys.get(kid)

    async def close(self) -> None:
        """Give up a fetch that is under way."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait([self._fetch])

    async def _refresh(self) -> None:
        """Fetch, or wait for the fetch that is under way; nothing within the cool-down."""
        if self._fetch is None:
            now = self._clock()
            if self._tried_at is not None and now - self._tried_at < self._cooldown:
                return
            self._tried_at = now
            self._fetch = asyncio.create_task(self._fetch_keys(), name="fetch of the token keys")
            self._fetch.add_done_callback(self._fetched)
        # Whoever gives up waiting must not end the fetch for the others.
        await asyncio.wait([self._fetch])

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetch = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("token_keys_fetch_failed", exc_info=error)

    async def _fetch_keys(self) -> None:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PATIENCE)) as session,
                session.get(self._url, allow_redirects=False) as answer,
            ):
                answer.raise_for_status()
                body = await _read(answer.content)
            keys = _rsa_keys(body)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.warning("token_keys_not_fetched", url=self._url, reason=str(error) or repr(error))
            return
        self._keys = keys
        self._fetched_at = self._clock()


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = b""
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise ValueError(f"the key set has more than {_MAX_BYTES} bytes")
    return body


def _rsa_keys(body: bytes) -> dict[str, RSAKey]:
    """The keys that may sign with RS256, by id; all others are passed over. Raises ValueError."""
    match orjson.loads(body):
        case {"keys": list(entries)}:
            pass
        case _:
            raise ValueError("it is not a JSON Web Key Set")
    keys = {}
    for entry in entries:
        match entry:
            case {"kty": "RSA", "kid": str(kid)} if (
                entry.get("use", "sig") == "sig" and entry.get("alg", "RS256") == "RS256"
            ):
                try:
                    keys[kid] = RSAKey.import_key({k: entry[k] for k in ("kty", "n", "e")})
                except (JoseError, KeyError, TypeError, ValueError) as error:
                    log.warning("token_key_unusable", kid=kid, reason=type(error).__name__)
    return keys
