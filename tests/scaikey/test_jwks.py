"""The issuer's keys: fetched over a real socket, kept, renewed, and outlived."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
import pytest
import structlog
from aiohttp import web

from app.auth.settings import AuthSettings
from app.scaikey.jwks import BadKeySet, KeySetCache, KeysUnavailable, key_set
from app.telemetry.metrics import Metrics
from tests.auth.conftest import Clock
from tests.auth.scripted_issuer import ScriptedIssuer, ec_key, public, rsa_key

PATIENCE = 60.0

MakeCache = Callable[..., KeySetCache]


@pytest.fixture
async def make(
    auth: AuthSettings, session: aiohttp.ClientSession, clock: Clock
) -> AsyncIterator[MakeCache]:
    caches: list[KeySetCache] = []

    def make(metrics: Metrics | None = None, **others: Any) -> KeySetCache:
        cache = KeySetCache(
            settings=replace(auth, **others).jwks,
            session=session,
            clock=clock,
            fetches=(metrics or Metrics()).jwks_fetches,
        )
        caches.append(cache)
        return cache

    yield make
    for cache in caches:
        await cache.close()


def modulus(key: Any) -> str:
    return str(key.as_dict(private=False)["n"])


async def test_keys_are_fetched_once_and_kept(
    make: MakeCache, issuer: ScriptedIssuer, clock: Clock
) -> None:
    cache = make()
    found = await cache.find("k1")
    assert modulus(found) == modulus(rsa_key())
    clock.now += 599
    assert await cache.find("k1") is found
    assert issuer.fetches == 1


async def test_keys_are_renewed_when_they_are_old(
    make: MakeCache, issuer: ScriptedIssuer, clock: Clock
) -> None:
    cache = make()
    await cache.find("k1")
    issuer.keys = [public(rsa_key(2), "k1")]
    clock.now += 600
    assert modulus(await cache.find("k1")) == modulus(rsa_key(2))
    assert issuer.fetches == 2


async def test_a_key_that_was_withdrawn_no_longer_counts(
    make: MakeCache, issuer: ScriptedIssuer, clock: Clock
) -> None:
    cache = make()
    await cache.find("k1")
    issuer.keys = [public(rsa_key(2), "k2")]
    clock.now += 600
    assert await cache.find("k1") == "the issuer does not have this key"


async def test_an_unknown_kid_is_asked_for_once_in_a_cool_down(
    make: MakeCache, issuer: ScriptedIssuer, clock: Clock
) -> None:
    cache = make()
    await cache.find("k1")
    clock.now += 10
    issuer.keys.append(public(rsa_key(2), "k2"))
    assert modulus(await cache.find("k2")) == modulus(rsa_key(2))
    assert issuer.fetches == 2
    for number in range(50):
        assert await cache.find(f"invented-{number}") == "the issuer does not have this key"
    assert issuer.fetches == 2
    clock.now += 10
    await cache.find("invented")
    assert issuer.fetches == 3


async def test_who_needs_the_keys_at_once_shares_a_fetch_that_outlives_the_first(
    make: MakeCache, issuer: ScriptedIssuer
) -> None:
    cache = make()
    issuer.open.clear()
    async with asyncio.timeout(PATIENCE):
        callers = [asyncio.create_task(cache.find("k1")) for _ in range(20)]
        await issuer.arrived.acquire()
        callers[0].cancel()
        issuer.open.set()
        found = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert {modulus(key) for key in found[1:]} == {modulus(rsa_key())}
    assert issuer.fetches == 1


async def test_old_keys_are_used_while_the_issuer_is_down(
    make: MakeCache, issuer: ScriptedIssuer, clock: Clock
) -> None:
    metrics = Metrics()
    cache = make(metrics, jwks_stale_limit=1000.0)
    await cache.find("k1")
    issuer.jwks = _status(500)
    clock.now += 1599
    with structlog.testing.capture_logs() as events:
        for _ in range(10):
            assert modulus(await cache.find("k1")) == modulus(rsa_key())
    assert issuer.fetches == 2, "it was asked again within the cool-down"
    assert [(event["event"], event["reason"]) for event in events] == [
        ("jwks_fetch_failed", "the issuer answered with status 500")
    ]
    failed = metrics.registry.get_sample_value("scaimind_jwks_fetches_total", {"result": "failed"})
    assert failed == 1

    # A kid that is not among them may be new.
    with pytest.raises(KeysUnavailable):
        await cache.find("k2")

    clock.now += 1
    with pytest.raises(KeysUnavailable):
        await cache.find("k1")

    clock.now += 10
    issuer.jwks = None
    assert modulus(await cache.find("k1")) == modulus(rsa_key())


async def test_nobody_waits_for_an_issuer_that_hangs_but_the_first(
    make: MakeCache, issuer: ScriptedIssuer, clock: Clock
) -> None:
    cache = make()
    await cache.find("k1")
    issuer.jwks = _status(500)
    clock.now += 600
    await cache.find("k1")
    issuer.jwks = None
    issuer.open.clear()
    issuer.keys = [public(rsa_key(2), "k1")]
    clock.now += 10
    async with asyncio.timeout(PATIENCE):
        for _ in range(3):
            assert modulus(await cache.find("k1")) == modulus(rsa_key())
        while issuer.fetches < 3:
            await issuer.arrived.acquire()
        new = asyncio.create_task(cache.find("k9"))  # has to wait
        issuer.open.set()
        await new
    assert modulus(await cache.find("k1")) == modulus(rsa_key(2))
    assert issuer.fetches == 3


async def test_without_keys_a_failed_fetch_is_repeated_soon(
    make: MakeCache, issuer: ScriptedIssuer, clock: Clock
) -> None:
    cache = make()
    issuer.jwks = _status(503)
    for _ in range(5):
        with pytest.raises(KeysUnavailable):
            await cache.find("k1")
    assert issuer.fetches == 1
    issuer.jwks = None
    clock.now += 1
    assert modulus(await cache.find("k1")) == modulus(rsa_key())


async def test_nobody_listens(make: MakeCache) -> None:
    with pytest.raises(KeysUnavailable):
        await make(jwks_url="http://127.0.0.1:1/jwks").find("k1")


async def test_an_issuer_that_does_not_answer(
    auth: AuthSettings, issuer: ScriptedIssuer, clock: Clock
) -> None:
    issuer.open.clear()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as session:
        cache = KeySetCache(
            settings=auth.jwks, session=session, clock=clock, fetches=Metrics().jwks_fetches
        )
        with structlog.testing.capture_logs() as events, pytest.raises(KeysUnavailable):
            async with asyncio.timeout(PATIENCE):
                await cache.find("k1")
    assert [event["reason"] for event in events] == ["no answer in time"]


async def test_a_fetch_that_is_under_way_is_given_up_at_the_end(
    make: MakeCache, issuer: ScriptedIssuer
) -> None:
    cache = make()
    issuer.open.clear()
    waiting = asyncio.create_task(cache.find("k1"))
    async with asyncio.timeout(PATIENCE):
        await issuer.arrived.acquire()
        await cache.close()
        await asyncio.wait((waiting,))
    assert waiting.cancelled()


def _status(
    status: int, body: bytes = b"", **headers: str
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        _status(200, b"<html>"),
        _status(200, b'"keys"'),
        _status(200, b'{"keys": {"k1": 1}}'),
        _status(200, b'{"keys": []}'),
        _status(200, b'{"keys": [1, null, {"kid": 5}]}'),
        _status(200, b"[" * 100_000),
        _status(200, b'{"keys": [' + b'{"kty": "oct"},' * 20_000 + b"{}]}"),
        _status(200, b"not gzip", **{"Content-Encoding": "gzip"}),
        _status(404),
        _status(302, Location="/jwks"),
    ],
)
async def test_a_document_that_is_of_no_use_does_not_take_the_keys_away(
    make: MakeCache, issuer: ScriptedIssuer, clock: Clock, answer: Any
) -> None:
    cache = make()
    before = await cache.find("k1")
    issuer.jwks = answer
    clock.now += 600
    with structlog.testing.capture_logs() as events:
        assert await cache.find("k1") is before
    assert [event["event"] for event in events] == ["jwks_fetch_failed"]


def test_keys_that_cannot_be_used_are_told_apart() -> None:
    good = public(rsa_key(), "good")
    weak = base64.urlsafe_b64encode(b"\xff" * 128).decode().rstrip("=")
    found = key_set(
        orjson.dumps(
            {
                "keys": [
                    public(ec_key(), "ec"),
                    {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
                    {**good, "kid": "encryption", "use": "enc"},
                    {**good, "kid": "pss", "alg": "PS256"},
                    {**good, "kid": "signs", "key_ops": ["sign"]},
                    {**good, "kid": "weak", "n": weak},
                    {**good, "kid": "no-number", "n": "!"},
                    {**good, "kid": "even-exponent", "e": "AAAA"},
                    {"kty": "RSA", "kid": "empty"},
                    {**good, "kid": None},
                    good,
                    {**good, "kid": "full", "use": "sig", "alg": "RS256", "key_ops": ["verify"]},
                ]
            }
        )
    )
    assert set(found.usable) == {"good", "full"}
    assert found.unusable == {
        "ec": "it is not an RSA key",
        "secret": "it is not an RSA key",
        "encryption": "it is not for signatures",
        "pss": "it is for an algorithm other than RS256",
        "signs": "it is not for checking signatures",
        "weak": "it has fewer than 2048 bits",
        "no-number": "it has fewer than 2048 bits",
        "even-exponent": "its numbers do not form a key",
        "empty": "it is not complete",
    }


def test_of_two_keys_with_one_kid_the_usable_one_counts() -> None:
    found = key_set(orjson.dumps({"keys": [public(ec_key(), "k1"), public(rsa_key(), "k1")]}))
    assert modulus(found.usable["k1"]) == modulus(rsa_key())
    assert found.unusable == {}


def test_a_private_key_is_taken_as_a_public_one() -> None:
    member = {**rsa_key().as_dict(private=True), "kid": "k1"}
    found = key_set(orjson.dumps({"keys": [member]}))
    assert not found.usable["k1"].is_private


def test_a_set_without_a_usable_key_is_none() -> None:
    with pytest.raises(BadKeySet):
        key_set(orjson.dumps({"keys": [public(ec_key(), "k1")]}))
