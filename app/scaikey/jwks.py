"""The public keys of an issuer (RFC 7517), fetched when they are needed and kept for a while."""

import asyncio
import base64
import binascii
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import aiohttp
import orjson
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from prometheus_client import Counter

from app.scaikey.http import AnswerTooLong, read_bounded, reason
from app.scaikey.settings import JwksSettings
from app.tasks.single_flight import SingleFlight

log = structlog.get_logger()

#: RFC 7518, 3.3.
_LEAST_BITS = 2048
#: Larger than any key set of an issuer that means well.
_LONGEST_DOCUMENT = 256 * 1024
#: Seconds after which a fetch that failed is tried again while there are no keys at all.
_PAUSE_WITHOUT_KEYS = 1.0


class KeysUnavailable(Exception):
    """Whether the key exists cannot be determined now; a later attempt may succeed."""


class BadKeySet(Exception):
    """The issuer's answer is not a usable key set; the text says why."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """What one document says: keys for RS256 by their `kid`, and why others cannot be used."""

    usable: Mapping[str, RSAKey]
    unusable: Mapping[str, str]


#: A key, or why there is none that can be used: a text for operators.
Found: TypeAlias = RSAKey | str


@dataclass(frozen=True, slots=True)
class _Fetched:
    keys: KeySet
    at: float


class KeySetCache:
    """The issuer's keys, as a JWKS URL has them.

    They are fetched at the first use, again once they are `ttl` old, and
    again for a `kid` that is not among them, then at most once in
    `cooldown` seconds. Whoever needs a fetch at the same time shares one,
    which goes on when one of them leaves. While fetches fail, keys are served
    for `stale_limit` seconds longer, and the issuer is asked again after
    each cool-down, without keeping anyone waiting. A document without a usable
    key counts as a failure: it is more often a mistake than the end of an
    issuer.

    `session` stays the caller's; `close` before it is closed.
    """

    def __init__(
        self,
        *,
        settings: JwksSettings,
        session: aiohttp.ClientSession,
        clock: Callable[[], float],
        fetches: Counter | None = None,
    ) -> None:
        """`fetches` counts by `result`, `fetched` or `failed`, where a program has metrics."""
        self._settings = settings
        self._session = session
        self._clock = clock
        self._fetches = fetches
        self._limit = settings.ttl + settings.stale_limit
        self._fetched: _Fetched | None = None
        self._fetching = SingleFlight[str, None]()
        self._attempt_at: float | None = None
        self._failed = False

    async def find(self, kid: str) -> Found:
        """Return the key, or why there is none. Raises `KeysUnavailable`."""
        if self._age() >= self._settings.ttl:
            fetch = self._begin_fetch()
            # After a failure, nobody waits for the next one who can be served without.
            if not (self._failed and self._age() < self._limit):
                await _end_of(fetch)
        found = self._look_up(kid)
        if isinstance(found, str):
            # It may be new: the issuer's keys change without notice.
            await _end_of(self._begin_fetch())
            found = self._look_up(kid)
            if isinstance(found, str) and self._failed:
                raise KeysUnavailable(
                    "the issuer's keys cannot be fetched, and this key is unknown"
                )
        return found

    def at_hand(self, kid: str) -> RSAKey | None:
        """Return the key if `find` would return it without waiting, or fetching any."""
        if self._fetched is None or self._age() >= self._settings.ttl:
            return None
        return self._fetched.keys.usable.get(kid)

    async def problem(self) -> str | None:
        """Return why the keys cannot be fetched, in words that anyone may read; None if they can.

        Asks the issuer only when a key would be looked up there: when the keys
        are old, or after a failure, and never within the cool-down.
        """
        if self._failed or self._age() >= self._settings.ttl:
            await _end_of(self._begin_fetch())
        return "its keys cannot be fetched" if self._failed else None

    async def close(self) -> None:
        """Cancel a fetch that is in progress."""
        await self._fetching.close()

    def _look_up(self, kid: str) -> Found:
        fetched = self._fetched
        if fetched is None or self._age() >= self._limit:
            raise KeysUnavailable("the issuer's keys cannot be fetched")
        if (key := fetched.keys.usable.get(kid)) is not None:
            return key
        return fetched.keys.unusable.get(kid, "the issuer does not have this key")

    def _age(self) -> float:
        return math.inf if self._fetched is None else self._clock() - self._fetched.at

    def _begin_fetch(self) -> "asyncio.Task[None] | None":
        """Return the fetch that is under way; begin one unless one was tried just now."""
        url = self._settings.url
        fetch = self._fetching.running(url)
        if fetch is None and not self._cooling_down():
            fetch = self._fetching.start(url, self._fetch, name="fetch the issuer's keys")
        return fetch

    def _cooling_down(self) -> bool:
        if self._attempt_at is None:
            return False
        pause = self._settings.cooldown
        if self._fetched is None:
            pause = min(pause, _PAUSE_WITHOUT_KEYS)
        return self._clock() - self._attempt_at < pause

    async def _fetch(self) -> None:
        self._attempt_at = asked_at = self._clock()
        try:
            keys = key_set(await self._document())
        except (aiohttp.ClientError, TimeoutError, AnswerTooLong, BadKeySet) as error:
            self._failed = True
            self._count("failed")
            log.warning("jwks_fetch_failed", url=self._settings.url, reason=reason(error))
        else:
            self._failed = False
            self._fetched = _Fetched(keys, asked_at)
            self._count("fetched")
            for kid, why in keys.unusable.items():
                log.debug("jwks_key_ignored", kid=kid, reason=why)

    def _count(self, result: str) -> None:
        if self._fetches is not None:
            self._fetches.labels(result=result).inc()

    async def _document(self) -> bytes:
        async with self._session.get(
            self._settings.url,
            allow_redirects=False,
            headers={"Accept": "application/jwk-set+json, application/json"},
        ) as response:
            if response.status != 200:
                raise BadKeySet(f"the issuer answered with status {response.status}")
            return await read_bounded(response, limit=_LONGEST_DOCUMENT)


async def _end_of(fetch: "asyncio.Task[None] | None") -> None:
    if fetch is not None:
        # Shielded: who leaves does not take the fetch away from the others.
        await asyncio.shield(fetch)


def key_set(document: bytes) -> KeySet:
    """Read a JWK Set. Raises `BadKeySet` if there is not one usable key in it.

    A key that cannot be used does not spoil the others (RFC 7517, 5). Where a
    `kid` is there twice, the first usable key has it.
    """
    try:
        members = orjson.loads(document)["keys"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        raise BadKeySet("it is not a JSON object with 'keys'") from None
    usable: dict[str, RSAKey] = {}
    unusable: dict[str, str] = {}
    for member in members if isinstance(members, list) else ():
        kid = member.get("kid") if isinstance(member, dict) else None
        if not isinstance(kid, str):
            continue  # no token can name it
        key = _rsa_key(member)
        if isinstance(key, str):
            unusable[kid] = key
        else:
            usable.setdefault(kid, key)
    if not usable:
        raise BadKeySet("it has no RSA signature key with a 'kid'")
    return KeySet(usable, {kid: why for kid, why in unusable.items() if kid not in usable})


def _rsa_key(member: Mapping[str, Any]) -> Found:
    """Take a key for checking RS256 signatures (RFC 7517, 4; RFC 7518, 6.3)."""
    if member.get("kty") != "RSA":
        return "it is not an RSA key"
    if member.get("use", "sig") != "sig":
        return "it is not for signatures"
    if member.get("alg", "RS256") != "RS256":
        return "it is for an algorithm other than RS256"
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return "it is not for checking signatures"
    modulus, exponent = member.get("n"), member.get("e")
    if not isinstance(modulus, str) or not isinstance(exponent, str):
        return "it is not complete"
    try:
        # Before it is imported: the library only warns.
        if _bits(modulus) < _LEAST_BITS:
            return f"it has fewer than {_LEAST_BITS} bits"
        # The public part alone, whatever else there is.
        return RSAKey.import_key({"kty": "RSA", "n": modulus, "e": exponent})
    except (JoseError, ValueError):
        return "its numbers do not form a key"


def _bits(number: str) -> int:
    try:
        octets = base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))
    except binascii.Error:
        return 0
    return int.from_bytes(octets, "big").bit_length()
