"""Exchange of the caller's token at ScaiKey for tokens of ScaiDrive and ScaiAtlas (RFC 8693)."""

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote_plus

import aiohttp
import orjson
import structlog
from aiohttp import hdrs
from cachetools import TLRUCache
from prometheus_client import Counter
from typing_extensions import override

from app.auth.settings import AuthSettings
from app.caller import Caller, DownstreamTokens
from app.errors import (
    AUTH_TOKEN_INVALID,
    CLOCK_SKEW,
    COORDINATOR_UNAUTHENTICATED,
    TOKEN_EXCHANGE_INVALID,
    TOKEN_EXCHANGE_REFUSED,
    TOKEN_EXCHANGE_UNAVAILABLE,
    ApiError,
    ErrorKind,
)
from app.scaikey import api_keys
from app.scaikey.http import AnswerTooLong, read_bounded, reason
from app.shortening import quoted
from app.tasks.single_flight import SingleFlight

log = structlog.get_logger()

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TYPE = "urn:ietf:params:oauth:token-type:access_token"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
API_KEY_TYPE = "urn:scaigrid:params:oauth:token-type:api-key"

_LONGEST_ANSWER = 64 * 1024
#: Both tokens have to fit into gRPC's 8 KiB of metadata, beside the rest.
_TOKEN = re.compile(r"[\x21-\x7e]{1,3584}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_RETRY_AFTER = 2
_LONGEST_RETRY_AFTER = 300
#: Until somebody has set a clock.
_CLOCK_RETRY_AFTER = 30
_CLOCK_ADVICE = "Compare the clocks of the coordinator's machine and of the identity provider."
#: RFC 6749, 5.2: the subject's token does not count (any more).
_SUBJECT_REFUSED = frozenset({"invalid_grant", "invalid_token"})

#: What `tokens_for` may raise, beside `AUTH_TOKEN_INVALID`.
ERRORS = (TOKEN_EXCHANGE_REFUSED, TOKEN_EXCHANGE_INVALID, TOKEN_EXCHANGE_UNAVAILABLE)

#: Hash of the caller's token, and the audience.
_Key: TypeAlias = tuple[bytes, str]


class Exchange(Protocol):
    """The source of the tokens that handlers forward."""

    async def tokens_for(self, caller: Caller) -> DownstreamTokens | None:
        """Return both tokens; None where none are forwarded. Raises `ApiError`."""

    def out_of_time(self, caller: Caller, tokens: DownstreamTokens | None) -> ApiError:
        """Forget tokens that the coordinator's clock has refused, and return the caller's error."""


class NoExchange(Exchange):
    """A deployment whose coordinator is sent no tokens."""

    @override
    async def tokens_for(self, caller: Caller) -> None:
        return None

    @override
    def out_of_time(self, caller: Caller, tokens: DownstreamTokens | None) -> ApiError:
        return ApiError(COORDINATOR_UNAUTHENTICATED)


@asynccontextmanager
async def lent_tokens(exchange: Exchange, caller: Caller) -> AsyncIterator[DownstreamTokens | None]:
    """Have the caller's tokens for a call within. Raises `ApiError` if they cannot be had.

    `CLOCK_SKEW` from within becomes the error that `Exchange.out_of_time` makes of it.
    """
    tokens = await exchange.tokens_for(caller)
    try:
        yield tokens
    except ApiError as error:
        if error.kind is CLOCK_SKEW:
            raise exchange.out_of_time(caller, tokens) from None
        raise


@dataclass(frozen=True, slots=True)
class _Minted:
    token: str = field(repr=False)
    #: On the monotonic clock; from then on it is not sent any more.
    good_until: float
    #: On the monotonic clock: its end by the issuer's word, never if that says nothing.
    ends_at: float


class TokenExchange(Exchange):
    """Exchanges callers' tokens, and remembers what came of it.

    A token is remembered until `exchange_margin` seconds before its end, and
    never beyond the end of the caller's own; the least recently used goes
    when there are more than `exchange_cache_size`. Who needs the same token
    at the same time shares one request, which goes on when one of them
    leaves. Failures are not remembered. `now` and `clock` are the wall clock
    and the monotonic one.

    `session` stays the caller's; `close` before it is closed.
    """

    def __init__(
        self,
        *,
        settings: AuthSettings,
        session: aiohttp.ClientSession,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        exchanges: Counter,
    ) -> None:
        self._settings = settings
        self._session = session
        self._now = now
        self._clock = clock
        self._exchanges = exchanges
        # RFC 6749, 2.3.1: encoded as a form is, before they are joined.
        self._client = aiohttp.encode_basic_auth(
            quote_plus(settings.client_id), quote_plus(settings.client_secret)
        )
        self._minted: TLRUCache[_Key, _Minted] = TLRUCache(
            settings.exchange_cache_size,
            lambda _key, minted, _now: minted.good_until,
            timer=clock,
        )
        self._requests = SingleFlight[_Key, _Minted]()
        #: Whether the last request was answered, if only by a refusal.
        self.answered = True

    @override
    async def tokens_for(self, caller: Caller) -> DownstreamTokens:
        """Return both tokens. Raises `ApiError` if one of them cannot be had."""
        if not caller.subject_token:
            raise ValueError("the caller has no token to exchange")
        drive, atlas = await asyncio.gather(
            self._token(caller, self._settings.drive_audience),
            self._token(caller, self._settings.atlas_audience),
        )
        return DownstreamTokens(
            scaidrive=drive.token,
            scaiatlas=atlas.token,
            ends_at=min(drive.ends_at, atlas.ends_at),
        )

    @override
    def out_of_time(self, caller: Caller, tokens: DownstreamTokens | None) -> ApiError:
        """Return `CLOCK_SKEW`, unless the tokens have ended meanwhile: then the clocks may agree.

        Tokens that were made by a wrong clock would be refused until their end: the next request
        gets new ones.
        """
        for audience in (self._settings.drive_audience, self._settings.atlas_audience):
            self._minted.pop(_key(caller, audience), None)
        if tokens is None or self._clock() >= tokens.ends_at:
            return ApiError(COORDINATOR_UNAUTHENTICATED)
        log.error("scaimind_clock_skew", advice=_CLOCK_ADVICE)
        return ApiError(CLOCK_SKEW, retry_after=_CLOCK_RETRY_AFTER)

    async def close(self) -> None:
        """Cancel the requests that are in progress."""
        await self._requests.close()

    async def _token(self, caller: Caller, audience: str) -> _Minted:
        key = _key(caller, audience)
        minted = self._minted.get(key)
        if minted is not None:
            self._exchanges.labels(result="remembered").inc()
            return minted
        return await self._requests.ask(
            key, lambda: self._mint(key, caller), name=f"exchange a token for {audience}"
        )

    async def _mint(self, key: _Key, caller: Caller) -> _Minted:
        asked_at = self._clock()  # from here on, the token ages
        _, audience = key
        try:
            status, headers, body = await self._ask(caller.subject_token, audience)
            self.answered = status < 500
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answered = False
            raise self._unavailable(audience, reason(error)) from None
        except AnswerTooLong as error:
            raise self._failure(TOKEN_EXCHANGE_INVALID, "invalid", audience, str(error)) from None
        if status != 200:
            raise self._refusal(audience, status, headers, body)
        token, lifetime = self._read(audience, body)
        self._exchanges.labels(result="minted").inc()
        ends_at = asked_at + lifetime if lifetime > 0 else math.inf
        if caller.expires_at is not None:
            lifetime = min(lifetime, (caller.expires_at - self._now()).total_seconds())
        # One whose time is up already is not kept.
        good_until = asked_at + lifetime - self._settings.exchange_margin
        self._minted[key] = minted = _Minted(token, good_until, ends_at)
        return minted

    async def _ask(self, subject_token: str, audience: str) -> tuple[int, Mapping[str, str], bytes]:
        is_key = api_keys.is_api_key(subject_token)
        async with self._session.post(
            self._settings.token_url,
            data={
                "grant_type": GRANT_TYPE,
                "audience": audience,
                "requested_token_type": ACCESS_TYPE,
                "subject_token": subject_token,
                "subject_token_type": API_KEY_TYPE if is_key else JWT_TYPE,
            },
            headers={hdrs.AUTHORIZATION: self._client, hdrs.ACCEPT: "application/json"},
            allow_redirects=False,
        ) as response:
            body = await read_bounded(response, limit=_LONGEST_ANSWER)
            return response.status, response.headers, body

    def _read(self, audience: str, body: bytes) -> tuple[str, float]:
        """Take the token and its life in seconds from an answer (RFC 8693, 2.2.1)."""
        answer = _json_object(body)
        token, lifetime = answer.get("access_token"), answer.get("expires_in", 0)
        kind = answer.get("token_type")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            problem = "no usable access_token"
        elif not isinstance(kind, str) or kind.lower() not in ("bearer", "n_a"):
            problem = "a token_type that is not Bearer"
        elif answer.get("issued_token_type", JWT_TYPE) not in (JWT_TYPE, ACCESS_TYPE):
            problem = "an unexpected issued_token_type"
        elif isinstance(lifetime, bool) or not isinstance(lifetime, int | float):
            problem = "an expires_in that is not a number"
        else:
            return token, lifetime
        raise self._failure(TOKEN_EXCHANGE_INVALID, "invalid", audience, problem)

    def _refusal(
        self, audience: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> ApiError:
        """Return the error for an answer other than 200."""
        if status == 429 or status >= 500:
            return self._unavailable(
                audience, f"status {status}", retry_after=headers.get(hdrs.RETRY_AFTER, "")
            )
        answer = _json_object(body)
        code = answer.get("error")
        if status < 400 or not isinstance(code, str):
            return self._failure(
                TOKEN_EXCHANGE_INVALID, "invalid", audience, f"status {status}, no RFC 6749 error"
            )
        # What ScaiKey says of the error is for developers, and may hold anything.
        problem = f"status {status}, {quoted(code)}"
        if code in _SUBJECT_REFUSED:
            return self._failure(AUTH_TOKEN_INVALID, "subject_refused", audience, problem)
        return self._failure(TOKEN_EXCHANGE_REFUSED, "refused", audience, problem)

    def _unavailable(self, audience: str, problem: str, *, retry_after: str = "") -> ApiError:
        error = self._failure(TOKEN_EXCHANGE_UNAVAILABLE, "unavailable", audience, problem)
        error.retry_after = _RETRY_AFTER
        if _SECONDS.fullmatch(retry_after):
            error.retry_after = max(1, min(int(retry_after), _LONGEST_RETRY_AFTER))
        return error

    def _failure(self, kind: ErrorKind, result: str, audience: str, problem: str) -> ApiError:
        self._exchanges.labels(result=result).inc()
        log.warning("token_exchange_failed", code=kind.code, audience=audience, reason=problem)
        return ApiError(kind)


def _key(caller: Caller, audience: str) -> _Key:
    return hashlib.sha256(caller.subject_token.encode()).digest(), audience


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}
