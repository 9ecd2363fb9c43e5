"""The issuer's keys: fetched once, kept, and fetched again when one is unknown."""

import asyncio

import pytest
from joserfc.jwk import ECKey, RSAKey

from app.coordinator.identity.jwks import KeySet, KeysUnavailable
from tests.coordinator.issuing import Issuer, issuing


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def key_set(issuer: Issuer, clock: Clock) -> KeySet:
    return KeySet(issuer.url, max_age=100, cooldown=10, clock=clock)


def new_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid})


async def test_many_wait_for_one_fetch() -> None:
    async with issuing() as issuer:
        keys = key_set(issuer, Clock())
        found = await asyncio.gather(*(keys.key("first") for _ in range(20)))
        assert all(key is not None for key in found)
        assert issuer.fetches == 1
        assert await keys.key("first") is not None
        assert issuer.fetches == 1


async def test_one_that_gives_up_does_not_end_the_fetch_for_the_others() -> None:
    async with issuing() as issuer:
        keys = key_set(issuer, Clock())
        first = asyncio.create_task(keys.key("first"))
        second = asyncio.create_task(keys.key("first"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second is not None
        assert issuer.fetches == 1


async def test_an_unknown_key_is_fetched_once_within_the_cooldown() -> None:
    async with issuing() as issuer:
        clock = Clock()
        keys = key_set(issuer, clock)
        assert await keys.key("first") is not None
        issuer.keys = [issuer.key, new_key("second")]
        assert await keys.key("second") is None
        assert issuer.fetches == 1
        clock.now += 11
        assert await keys.key("second") is not None
        assert await keys.key("third") is None
        assert issuer.fetches == 2


async def test_a_key_that_the_issuer_withdrew_is_gone_when_the_keys_are_old() -> None:
    async with issuing() as issuer:
        clock = Clock()
        keys = key_set(issuer, clock)
        await keys.key("first")
        issuer.keys = [new_key("second")]
        assert await keys.key("first") is not None
        clock.now += 101
        assert await keys.key("first") is None


async def test_old_keys_are_served_while_the_issuer_is_away() -> None:
    async with issuing() as issuer:
        clock = Clock()
        keys = key_set(issuer, clock)
        await keys.key("first")
        issuer.broken = True
        clock.now += 1000
        assert await keys.key("first") is not None
        assert issuer.fetches == 2


async def test_keys_that_were_never_fetched() -> None:
    async with issuing() as issuer:
        clock = Clock()
        keys = key_set(issuer, clock)
        issuer.broken = True
        with pytest.raises(KeysUnavailable):
            await keys.key("first")
        issuer.broken = False
        clock.now += 11
        assert await keys.key("first") is not None


async def test_keys_of_other_kinds_are_passed_over() -> None:
    async with issuing() as issuer:
        issuer.keys = [ECKey.generate_key("P-256", {"kid": "first"})]
        assert await key_set(issuer, Clock()).key("first") is None
