"""A tenant's feed: what clients can make it ask of the coordinator."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from typing_extensions import override

from app.caller import Caller
from app.hub.events.tenant_feed import TenantFeed
from app.hub.observer import HubObserver
from app.hub.selection.states import (
    JobChange,
    JobState,
    StatesBatch,
    StatesStart,
    StatesUpstream,
)
from app.hub.settings import HubSettings
from app.hub.upstream import Position
from tests.hub.selection.tenant import change, gone, state, whole

VERSION = 100_000


class Upstream(StatesUpstream):
    """Has a record up to `VERSION`; tells what was before it only once `answering` is set."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.going_on = asyncio.Event()
        self.asked: list[int] = []
        self.open = self.most_open = 0
        self.two_open = asyncio.Event()
        self.behind: list[JobChange] = [gone(VERSION - 1, "x"), change(VERSION, "a")]

    @override
    async def authorize_list(self, caller: Caller) -> None:
        return

    @override
    async def watch_jobs(
        self, tenant_id: str, *, after: Position | None, nodes: bool, queue: bool, request_id: str
    ) -> AsyncGenerator[StatesBatch, None]:
        if after is None:
            yield whole(change(VERSION, "a"))
            await self.going_on.wait()
            running = [change(VERSION + number, f"r{number}") for number in range(1, 20)]
            ended = change(VERSION + 20, "e", "COMPLETED", ended_at=1.0)
            yield StatesBatch(changes=[*running, ended, change(VERSION + 21, "a")])
            await asyncio.Event().wait()
            return
        self.asked.append(after.offset)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        if self.open == 2:
            self.two_open.set()
        try:
            yield StatesBatch(start=StatesStart("s1", reset=False))
            await self.answering.wait()
            yield StatesBatch(changes=self.behind, synced=VERSION)
            await asyncio.Event().wait()
        finally:
            self.open -= 1

    @override
    async def read_state(self, caller: Caller, job_id: str) -> JobState:
        return state(job_id)


@pytest.fixture
async def upstream() -> Upstream:
    return Upstream()


async def feed_of(upstream: Upstream, *, open_timeout: float) -> TenantFeed:
    feed = TenantFeed(
        "acme",
        upstream=upstream,
        settings=HubSettings(open_timeout=open_timeout, events_record_jobs=20),
        observer=HubObserver(),
        on_gone=lambda _: None,
        request_id="req_test",
    )
    feed.hold()
    await feed.ready(nodes=False, queue=False)
    return feed


@pytest.fixture
async def feed(upstream: Upstream) -> AsyncIterator[TenantFeed]:
    made = await feed_of(upstream, open_timeout=30)
    yield made
    await made.aclose()


@pytest.fixture
async def hasty(upstream: Upstream) -> AsyncIterator[TenantFeed]:
    made = await feed_of(upstream, open_timeout=0.2)
    yield made
    await made.aclose()


async def test_however_many_versions_are_asked_for_two_calls_are_open_and_all_end(
    upstream: Upstream, hasty: TenantFeed
) -> None:
    async with asyncio.timeout(60):
        reached = await asyncio.gather(*(hasty.reach(version) for version in range(1, 200)))
    assert reached == [False] * 199
    assert upstream.most_open == 2
    assert upstream.open == 0


async def test_who_waits_for_a_turn_is_served_by_a_call_that_goes_back_further(
    upstream: Upstream, feed: TenantFeed
) -> None:
    asking = [asyncio.create_task(feed.reach(version)) for version in range(1, 200)]
    await upstream.two_open.wait()
    upstream.answering.set()
    async with asyncio.timeout(60):
        assert await asyncio.gather(*asking) == [True] * 199
    assert upstream.asked == [1, 2]
    assert [(each.version, each.job_id) for each in feed.record.changes_since(1)] == [
        (VERSION - 1, "x"),
        (VERSION, "a"),
    ]


async def test_more_deletions_than_the_record_keeps_are_too_many(
    upstream: Upstream, feed: TenantFeed
) -> None:
    most = feed.record.DELETIONS
    upstream.behind = [gone(number, f"j{number}") for number in range(10, 11 + most)]
    upstream.answering.set()
    assert not await feed.reach(1)
    assert feed.record.floor == VERSION
    upstream.behind.pop()
    assert await feed.reach(1)


async def test_a_place_before_the_last_change_of_a_forgotten_job_is_too_old(
    upstream: Upstream, feed: TenantFeed
) -> None:
    upstream.going_on.set()
    await feed.until_known(["r19"])
    assert feed.record.get("e") is None
    assert await feed.reach(VERSION + 20)
    assert not await feed.reach(VERSION + 19)
    assert upstream.asked == []
