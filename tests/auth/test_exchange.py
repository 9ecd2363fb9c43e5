"""Token exchange (RFC 8693) with an identity provider over a real socket."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from app.auth.exchange import Exchange, NoExchange, TokenExchange, lent_tokens
from app.auth.settings import AuthSettings
from app.caller import Caller, DownstreamTokens
from app.errors import CLOCK_SKEW, COORDINATOR_UNAUTHENTICATED, JOB_NOT_FOUND, ApiError, ErrorKind
from app.telemetry.metrics import Metrics
from tests.auth.conftest import Clock
from tests.auth.scripted_issuer import ScriptedIssuer, minted, refused

PATIENCE = 60.0

API_KEY = "sgk_" + "k" * 43
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"
ANN = Caller(tenant_id="acme", user_id="ann", subject_token=API_KEY)

MakeExchange = Callable[..., TokenExchange]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def make(
    auth: AuthSettings, session: aiohttp.ClientSession, clock: Clock, metrics: Metrics
) -> AsyncIterator[MakeExchange]:
    made: list[TokenExchange] = []

    def make(**others: Any) -> TokenExchange:
        exchange = TokenExchange(
            settings=replace(auth, **others),
            session=session,
            now=lambda: datetime.fromtimestamp(clock.now, UTC),
            clock=clock,
            exchanges=metrics.token_exchanges,
        )
        made.append(exchange)
        return exchange

    yield make
    for exchange in made:
        await exchange.close()


def counted(metrics: Metrics) -> dict[str, float]:
    names = ("remembered", "minted", "refused", "subject_refused", "invalid", "unavailable")
    values = {
        name: metrics.registry.get_sample_value("scaimind_token_exchanges_total", {"result": name})
        for name in names
    }
    return {name: value for name, value in values.items() if value}


async def test_both_tokens_are_got_for_the_caller(
    make: MakeExchange, issuer: ScriptedIssuer, metrics: Metrics
) -> None:
    tokens = await make().tokens_for(ANN)

    assert tokens.scaidrive.startswith("scaidrive-token-")
    assert tokens.scaiatlas.startswith("scaiatlas-token-")
    assert tokens.scaidrive not in repr(tokens)
    asked = {form["audience"]: form for form in issuer.exchanges}
    assert asked.keys() == {"scaidrive", "scaiatlas"}
    for form in asked.values():
        assert form == {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": form["audience"],
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token": API_KEY,
            "subject_token_type": "urn:scaigrid:params:oauth:token-type:api-key",
        }
    # RFC 6749, 2.3.1: each part is encoded before they are joined.
    for authorization in issuer.authorizations:
        scheme, _, credentials = authorization.partition(" ")
        assert scheme == "Basic"
        assert base64.b64decode(credentials) == b"the+gateway:s%3Aecret+%2B"
    assert counted(metrics) == {"minted": 2}


async def test_a_jwt_is_sent_as_one(make: MakeExchange, issuer: ScriptedIssuer) -> None:
    await make().tokens_for(replace(ANN, subject_token=JWT))
    assert {form["subject_token_type"] for form in issuer.exchanges} == {
        "urn:ietf:params:oauth:token-type:jwt"
    }


async def test_a_caller_without_a_token_gets_none(make: MakeExchange) -> None:
    with pytest.raises(ValueError, match="no token"):
        await make().tokens_for(Caller(tenant_id="acme", user_id="ann"))


async def test_tokens_are_remembered_until_shortly_before_their_end(
    make: MakeExchange, issuer: ScriptedIssuer, clock: Clock, metrics: Metrics
) -> None:
    exchange = make()
    first = await exchange.tokens_for(ANN)
    clock.now += 269
    assert await exchange.tokens_for(replace(ANN, request_id="another")) == first
    assert len(issuer.exchanges) == 2
    clock.now += 1
    assert await exchange.tokens_for(ANN) != first
    assert len(issuer.exchanges) == 4
    assert counted(metrics) == {"minted": 4, "remembered": 2}


async def test_tokens_are_not_remembered_beyond_the_callers_own(
    make: MakeExchange, issuer: ScriptedIssuer, clock: Clock
) -> None:
    exchange = make()
    ends = datetime.fromtimestamp(clock.now, UTC) + timedelta(seconds=100)
    caller = replace(ANN, subject_token=JWT, expires_at=ends)
    await exchange.tokens_for(caller)
    clock.now += 69
    await exchange.tokens_for(caller)
    assert len(issuer.exchanges) == 2
    clock.now += 1
    await exchange.tokens_for(caller)
    assert len(issuer.exchanges) == 4


async def refuse(exchange: Exchange, kind: ErrorKind, *, clock: Clock, seconds: float = 0) -> None:
    """Use a caller's tokens for a call that takes so long, and is refused."""
    async with lent_tokens(exchange, ANN):
        clock.now += seconds
        raise ApiError(kind)


async def test_tokens_that_a_clock_refuses_within_their_time_are_its_fault(
    make: MakeExchange, clock: Clock
) -> None:
    exchange = make()
    first = await exchange.tokens_for(ANN)
    with structlog.testing.capture_logs() as events, pytest.raises(ApiError) as caught:
        await refuse(exchange, CLOCK_SKEW, clock=clock, seconds=200)
    assert caught.value.kind is CLOCK_SKEW
    assert caught.value.retry_after == 30
    (event,) = (each for each in events if each["event"] == "scaimind_clock_skew")
    assert event["log_level"] == "error"
    assert await exchange.tokens_for(ANN) != first, "they are not used again"


async def test_tokens_that_end_during_the_call_say_nothing_of_clocks(
    make: MakeExchange, clock: Clock
) -> None:
    with structlog.testing.capture_logs() as events, pytest.raises(ApiError) as caught:
        await refuse(make(), CLOCK_SKEW, clock=clock, seconds=300)
    assert caught.value.kind is COORDINATOR_UNAUTHENTICATED
    assert [each for each in events if each["event"] == "scaimind_clock_skew"] == []


async def test_without_tokens_no_clock_is_at_fault(clock: Clock) -> None:
    with pytest.raises(ApiError) as caught:
        await refuse(NoExchange(), CLOCK_SKEW, clock=clock)
    assert caught.value.kind is COORDINATOR_UNAUTHENTICATED


async def test_other_errors_of_the_call_pass(make: MakeExchange, clock: Clock) -> None:
    exchange = make()
    first = await exchange.tokens_for(ANN)
    with pytest.raises(ApiError) as caught:
        await refuse(exchange, JOB_NOT_FOUND, clock=clock)
    assert caught.value.kind is JOB_NOT_FOUND
    assert await exchange.tokens_for(ANN) == first


@pytest.mark.parametrize("lifetime", [None, 0, -5, 30, 29.5])
async def test_a_token_that_is_about_to_end_is_sent_once(
    make: MakeExchange, issuer: ScriptedIssuer, lifetime: float | None
) -> None:
    issuer.token = lambda form: minted(form["audience"], expires_in=lifetime)
    exchange = make()
    for _ in range(2):
        tokens = await exchange.tokens_for(ANN)
        assert tokens == DownstreamTokens(scaidrive="scaidrive", scaiatlas="scaiatlas")
    assert len(issuer.exchanges) == 4


async def test_nobody_gets_the_tokens_of_somebody_else(
    make: MakeExchange, issuer: ScriptedIssuer
) -> None:
    exchange = make()
    bob = Caller(tenant_id="acme", user_id="bob", subject_token="sgk_" + "b" * 43)
    anns, bobs = await asyncio.gather(exchange.tokens_for(ANN), exchange.tokens_for(bob))
    assert len({anns.scaidrive, bobs.scaidrive, anns.scaiatlas, bobs.scaiatlas}) == 4
    assert await exchange.tokens_for(ANN) == anns
    assert await exchange.tokens_for(bob) == bobs
    assert len(issuer.exchanges) == 4


async def test_the_memory_is_bounded(make: MakeExchange, issuer: ScriptedIssuer) -> None:
    exchange = make(exchange_cache_size=4)
    callers = [replace(ANN, subject_token=f"sgk_{letter * 43}") for letter in "abc"]
    for caller in (callers[0], callers[1], callers[0], callers[2]):
        await exchange.tokens_for(caller)
    assert len(issuer.exchanges) == 6
    await exchange.tokens_for(callers[0])  # used more recently than the second
    assert len(issuer.exchanges) == 6
    await exchange.tokens_for(callers[1])
    assert len(issuer.exchanges) == 8


async def test_many_who_need_tokens_at_once_share_the_requests(
    make: MakeExchange, issuer: ScriptedIssuer
) -> None:
    exchange = make()
    issuer.open.clear()
    async with asyncio.timeout(PATIENCE):
        callers = [asyncio.create_task(exchange.tokens_for(ANN)) for _ in range(50)]
        for _ in range(2):
            await issuer.arrived.acquire()
        callers[0].cancel()  # who began the requests
        issuer.open.set()
        results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert len({repr(tokens) for tokens in results[1:]}) == 1
    assert all(isinstance(tokens, DownstreamTokens) for tokens in results[1:])
    assert len(issuer.exchanges) == 2


async def test_what_is_under_way_is_given_up_at_the_end(
    make: MakeExchange, issuer: ScriptedIssuer
) -> None:
    exchange = make()
    issuer.open.clear()
    waiting = asyncio.create_task(exchange.tokens_for(ANN))
    async with asyncio.timeout(PATIENCE):
        for _ in range(2):
            await issuer.arrived.acquire()
        await exchange.close()
        await asyncio.wait((waiting,))
    assert waiting.cancelled()


async def failure(exchange: TokenExchange) -> ApiError:
    """How an exchange fails; neither the error nor the log tells a secret."""
    with structlog.testing.capture_logs() as events, pytest.raises(ApiError) as caught:
        await exchange.tokens_for(ANN)
    assert {event["event"] for event in events} == {"token_exchange_failed"}
    said = f"{events} {caught.value} {caught.value!r}"
    for secret in (API_KEY, "s:ecret", "s%3Aecret", "a-token", "the-inner-cause"):
        assert secret not in said
    assert "the-inner-cause" not in caught.value.message
    return caught.value


Answer = Callable[[dict[str, str]], web.StreamResponse]

FAILURES: dict[str, tuple[Answer, str, int | None]] = {
    "invalid_client": (lambda _: refused("invalid_client", status=401), "REFUSED", None),
    "invalid_target": (lambda _: refused("invalid_target"), "REFUSED", None),
    "invalid_request": (lambda _: refused("invalid_request"), "REFUSED", None),
    "unauthorized_client": (lambda _: refused("unauthorized_client"), "REFUSED", None),
    "403": (lambda _: refused("access_denied", status=403), "REFUSED", None),
    "500": (lambda _: web.Response(status=500), "UNAVAILABLE", 2),
    "502 of a proxy": (lambda _: web.Response(status=502, text="<html>"), "UNAVAILABLE", 2),
    "503 with a time": (
        lambda _: refused("x", status=503, **{"Retry-After": "17"}),
        "UNAVAILABLE",
        17,
    ),
    "503 with a date": (
        lambda _: refused("x", status=503, **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        "UNAVAILABLE",
        2,
    ),
    "503 for ever": (
        lambda _: refused("x", status=503, **{"Retry-After": "9" * 5000}),
        "UNAVAILABLE",
        2,
    ),
    "429": (lambda _: refused("x", status=429, **{"Retry-After": "999"}), "UNAVAILABLE", 300),
    "a redirect": (
        lambda _: web.Response(status=307, headers={"Location": "/elsewhere"}),
        "INVALID",
        None,
    ),
    "404": (lambda _: web.Response(status=404, text="nothing here"), "INVALID", None),
    "error is no text": (lambda _: refused({"code": 1}), "INVALID", None),
    "no JSON": (lambda _: web.Response(text="a-token"), "INVALID", None),
    "a list": (lambda _: web.Response(text='["a-token"]'), "INVALID", None),
    "204": (lambda _: web.Response(status=204), "INVALID", None),
    "no token": (lambda _: minted("a-token", access_token=None), "INVALID", None),
    "a token that is a number": (lambda _: minted("a-token", access_token=5), "INVALID", None),
    "an empty token": (lambda _: minted(""), "INVALID", None),
    "a token with a line break": (lambda _: minted("a-token\nx-tenant-id: b"), "INVALID", None),
    "a token that is too long": (lambda _: minted("a-token" * 1000), "INVALID", None),
    "no token_type": (lambda _: minted("a-token", token_type=None), "INVALID", None),
    "a MAC token": (lambda _: minted("a-token", token_type="mac"), "INVALID", None),
    "another kind of token": (
        lambda _: minted("a-token", issued_token_type="urn:x:saml2"),
        "INVALID",
        None,
    ),
    "a lifetime in words": (lambda _: minted("a-token", expires_in="soon"), "INVALID", None),
    "a lifetime of true": (lambda _: minted("a-token", expires_in=True), "INVALID", None),
    "an endless answer": (
        lambda _: minted("a-token", more="x" * 100_000),
        "INVALID",
        None,
    ),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_an_exchange_that_fails(
    make: MakeExchange, issuer: ScriptedIssuer, metrics: Metrics, case: str
) -> None:
    issuer.token, code, retry_after = FAILURES[case]
    exchange = make()
    error = await failure(exchange)
    assert error.kind.code == f"TOKEN_EXCHANGE_{code}"
    assert error.kind.status == (503 if code == "UNAVAILABLE" else 502)
    assert error.retry_after == retry_after
    assert counted(metrics).keys() == {code.lower()}

    # It is not remembered.
    issuer.token = lambda form: minted(form["audience"])
    await exchange.tokens_for(ANN)


@pytest.mark.parametrize("code", ["invalid_grant", "invalid_token"])
async def test_a_caller_whose_token_no_longer_counts(
    make: MakeExchange, issuer: ScriptedIssuer, metrics: Metrics, code: str
) -> None:
    issuer.token = lambda _: refused(code)
    error = await failure(make())
    assert (error.kind.code, error.kind.status) == ("AUTH_TOKEN_INVALID", 401)
    assert counted(metrics).keys() == {"subject_refused"}


@pytest.mark.parametrize("failing", ["scaidrive", "scaiatlas"])
async def test_half_of_the_tokens_is_none(
    make: MakeExchange, issuer: ScriptedIssuer, failing: str
) -> None:
    issuer.token = lambda form: (
        refused("invalid_target") if form["audience"] == failing else minted("a-token")
    )
    assert (await failure(make())).kind.code == "TOKEN_EXCHANGE_REFUSED"


async def test_nobody_listens(make: MakeExchange) -> None:
    error = await failure(make(token_url="http://127.0.0.1:1/token"))
    assert (error.kind.code, error.retry_after) == ("TOKEN_EXCHANGE_UNAVAILABLE", 2)


async def test_no_answer_in_time(auth: AuthSettings, issuer: ScriptedIssuer, clock: Clock) -> None:
    issuer.open.clear()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as session:
        exchange = TokenExchange(
            settings=auth,
            session=session,
            now=lambda: datetime.now(UTC),
            clock=clock,
            exchanges=Metrics().token_exchanges,
        )
        async with asyncio.timeout(PATIENCE):
            error = await failure(exchange)
        await exchange.close()
    assert error.kind.code == "TOKEN_EXCHANGE_UNAVAILABLE"


async def test_where_no_tokens_are_forwarded_nobody_is_asked() -> None:
    assert await NoExchange().tokens_for(ANN) is None  # type: ignore[func-returns-value]
