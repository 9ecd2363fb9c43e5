"""The lookup: answers a few seconds old at most, one query at a time per key, bounded."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from app.database.errors import DatabaseError
from app.scaikey.api_key_lookup import KeyLookup
from app.scaikey.api_keys import digest

KEY = "sgk_" + "k" * 43
OTHER = "sgk_" + "o" * 43


class Database:
    """Has the keys that it is told; waits at its gate, and counts its queries."""

    def __init__(self) -> None:
        self.known: set[str] = {KEY}
        self.queries = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.failing = False

    async def read(self, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        self.queries += 1
        self.asked.set()
        await self.gate.wait()
        if self.failing:
            raise DatabaseError("Connection refused")
        return [
            [digest(key), f"key_{key[4]}", "acme", "ann", ["tenant_admin"], [], "", NOW, None, None]
            for key in self.known
            if digest(key) == parameters[0]
        ]


NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Setup:
    def __init__(self, *, ttl: float = 3.0, size: int = 100) -> None:
        self.database = Database()
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.lookup = KeyLookup(
            database=self.database,
            ttl=ttl,
            size=size,
            clock=self.clock,
            lookups=Counter("lookups", "Lookups.", ("result",), registry=self.registry),
        )

    def counted(self, result: str) -> float:
        return self.registry.get_sample_value("lookups_total", {"result": result}) or 0


@pytest.fixture
async def setup() -> Setup:
    return Setup()


@pytest.mark.parametrize("key", [KEY, OTHER])
async def test_an_answer_is_remembered_for_its_time_and_no_longer(setup: Setup, key: str) -> None:
    first = await setup.lookup.find(key)
    assert (first is not None) is (key == KEY)
    setup.clock.now += 2.999
    assert await setup.lookup.find(key) == first
    assert setup.database.queries == 1
    setup.clock.now += 0.001
    assert await setup.lookup.find(key) == first
    assert setup.database.queries == 2
    assert setup.counted("remembered") == 1
    assert setup.counted("known" if key == KEY else "unknown") == 2


async def test_an_answer_ages_from_when_it_was_asked_for(setup: Setup) -> None:
    """What the database said may be as old as the question."""
    setup.database.gate.clear()
    asking = asyncio.create_task(setup.lookup.find(KEY))
    await setup.database.asked.wait()
    setup.clock.now += 3
    setup.database.gate.set()
    await asking
    await setup.lookup.find(KEY)
    assert setup.database.queries == 2


async def test_many_ask_for_one_key_with_one_query(setup: Setup) -> None:
    setup.database.gate.clear()
    asking = [asyncio.create_task(setup.lookup.find(KEY)) for _ in range(50)]
    await setup.database.asked.wait()
    setup.database.gate.set()
    answers = await asyncio.gather(*asking)
    assert setup.database.queries == 1
    assert {answer.key_id for answer in answers if answer is not None} == {"key_k"}


async def test_different_keys_do_not_wait_for_each_other(setup: Setup) -> None:
    setup.database.gate.clear()
    asking = [asyncio.create_task(setup.lookup.find(key)) for key in (KEY, OTHER)]
    async with asyncio.timeout(60):
        while setup.database.queries < 2:  # noqa: ASYNC110 - ends, or the test does
            await asyncio.sleep(0)
    setup.database.gate.set()
    known, unknown = await asyncio.gather(*asking)
    assert known is not None
    assert unknown is None


async def test_if_the_first_who_asks_leaves_the_others_get_the_answer(setup: Setup) -> None:
    setup.database.gate.clear()
    leader = asyncio.create_task(setup.lookup.find(KEY))
    await setup.database.asked.wait()
    follower = asyncio.create_task(setup.lookup.find(KEY))
    await asyncio.sleep(0)
    leader.cancel()
    setup.database.gate.set()
    assert await follower is not None
    assert leader.cancelled()
    assert setup.database.queries == 1


async def test_a_failure_reaches_all_who_wait_and_is_not_remembered(setup: Setup) -> None:
    setup.database.failing = True
    setup.database.gate.clear()
    asking = [asyncio.create_task(setup.lookup.find(KEY)) for _ in range(5)]
    await setup.database.asked.wait()
    setup.database.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, DatabaseError) for answer in answers)
    assert (setup.database.queries, setup.counted("failed")) == (1, 1)
    setup.database.failing = False
    assert await setup.lookup.find(KEY) is not None


async def test_an_old_answer_is_never_served_for_want_of_a_new_one(setup: Setup) -> None:
    await setup.lookup.find(KEY)
    setup.database.failing = True
    assert await setup.lookup.find(KEY) is not None
    setup.clock.now += 3
    with pytest.raises(DatabaseError):
        await setup.lookup.find(KEY)


async def test_a_ttl_of_nothing_asks_each_time() -> None:
    setup = Setup(ttl=0)
    await setup.lookup.find(KEY)
    await setup.lookup.find(KEY)
    assert setup.database.queries == 2


async def test_what_is_remembered_is_bounded_and_the_least_recent_goes_first() -> None:
    setup = Setup(size=2)
    keys = ["sgk_" + letter * 43 for letter in "abc"]
    setup.database.known = set(keys)
    for key in keys:
        await setup.lookup.find(key)
    assert setup.database.queries == 3
    await setup.lookup.find(keys[2])
    await setup.lookup.find(keys[1])
    assert setup.database.queries == 3
    await setup.lookup.find(keys[0])
    assert setup.database.queries == 4


async def test_invented_keys_do_not_push_out_real_ones() -> None:
    setup = Setup(size=2)
    await setup.lookup.find(KEY)
    for number in range(10):
        await setup.lookup.find(f"sgk_{number:043}")
    asked = setup.database.queries
    await setup.lookup.find(KEY)
    assert setup.database.queries == asked


async def test_what_is_forgotten_is_asked_for_anew_and_nothing_else(setup: Setup) -> None:
    setup.database.known.add(OTHER)
    for _ in range(2):
        await setup.lookup.find(KEY)
        await setup.lookup.find(OTHER)
    assert setup.database.queries == 2
    setup.lookup.forget("key_k")
    await setup.lookup.find(KEY)
    await setup.lookup.find(OTHER)
    assert setup.database.queries == 3


async def test_an_answer_that_is_on_its_way_meanwhile_is_not_remembered(setup: Setup) -> None:
    setup.database.gate.clear()
    asking = asyncio.create_task(setup.lookup.find(KEY))
    await setup.database.asked.wait()
    setup.lookup.forget("key_k")
    setup.database.gate.set()
    await asking
    await setup.lookup.find(KEY)
    assert setup.database.queries == 2
