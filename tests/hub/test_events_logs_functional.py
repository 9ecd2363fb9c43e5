"""Logs and metrics in the stream over many jobs: each entry once, also over breaks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc
import pytest

from generated.mindcoordinator.v1 import jobs_pb2, watch_pb2
from tests.hub.client import Watching
from tests.hub.conftest import Gateway, gateway_to
from tests.hub.sse import Event
from tests.hub.states_coordinator import StatesCoordinator, tells_states
from tests.hub.test_events_functional import beginning, news, until

Maker = Callable[..., Awaitable[Gateway]]
Place = tuple[str, str, int]


@pytest.fixture
async def states() -> AsyncIterator[StatesCoordinator]:
    async with tells_states() as running:
        yield running


@pytest.fixture
async def many(states: StatesCoordinator) -> AsyncIterator[Maker]:
    async with AsyncExitStack() as running:

        async def make(**changes: Any) -> Gateway:
            return await running.enter_async_context(gateway_to(states.address, **changes))

        yield make


class Dashboard:
    """A client that drops doubles and remembers the last bookmark."""

    def __init__(self) -> None:
        self.place = ""
        #: By job and epoch: the messages, by offset.
        self.lines: dict[tuple[str, str], dict[int, str]] = {}
        self.others: list[Event] = []
        self.doubled = 0

    def take(self, event: Event) -> None:
        if event.name == "bookmark":
            self.place = event.id
        elif event.name == "log":
            lines = self.lines.setdefault((event.data["job_id"], event.data["epoch"]), {})
            self.doubled += event.data["offset"] in lines
            lines[event.data["offset"]] = event.data["message"]
        else:
            self.others.append(event)

    async def follow(self, watching: Watching, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not done():
                self.take(await watching.next())

    def has(self, count: int) -> bool:
        return self.count() == count

    def count(self) -> int:
        return sum(len(lines) for lines in self.lines.values())

    def messages(self, job: str, epoch: str = "e1") -> list[str]:
        lines = self.lines.get((job, epoch), {})
        return [lines[offset] for offset in sorted(lines)]


async def test_logs_of_all_jobs_come_with_job_and_epoch(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    for job in "ab":
        await states.set_state(job)
        await states.log(f"{job} old", f"{job} newer", job=job)
    async with gateway.watch("events", include="jobs,logs", tail=1) as watching:
        await beginning(watching)
        first = [await news(watching), await news(watching)]
        assert sorted((each.data["job_id"], each.data["message"]) for each in first) == [
            ("a", "a newer"),
            ("b", "b newer"),
        ]
        await states.log("more", job="b")
        told = (await until(watching, "log"))[-1].data
        assert list(told)[:3] == ["job_id", "epoch", "offset"]
        assert (told["job_id"], told["epoch"], told["offset"]) == ("b", "e1", 3)
        assert states.open_watches == 2


async def test_each_line_comes_once_over_replicas_and_breaks(
    states: StatesCoordinator, many: Maker
) -> None:
    replicas = [await many(), await many()]
    jobs = [f"job{number}" for number in range(6)]
    for job in jobs:
        await states.set_state(job)
    expected: dict[str, list[str]] = {job: [] for job in jobs}
    dashboard = Dashboard()

    async def write(rounds: int) -> None:
        for _ in range(rounds):
            for number, job in enumerate(jobs):
                messages = [f"{job} {len(expected[job]) + i}" for i in range(number * 7 + 1)]
                expected[job] += messages
                await states.log(*messages, job=job)
            await asyncio.sleep(0)

    def complete() -> bool:
        return dashboard.count() == sum(map(len, expected.values()))

    def reached(least: int) -> bool:
        return dashboard.count() >= least

    for turn in range(8):
        query: dict[str, Any] = {"last_event_id": dashboard.place} if dashboard.place else {}
        async with replicas[turn % 2].watch(
            "events", include="jobs,logs", tail=0, **query
        ) as watching:
            assert watching.status == 200, watching.body
            await write(3)
            if turn == 5:
                # What the stream left off is gone from this replica's memory.
                await states.stop()
                await states.start()
            await write(2)
            goal = dashboard.count() + 20
            await dashboard.follow(watching, partial(reached, goal))
        await write(1)
    async with replicas[0].watch(
        "events", include="jobs,logs", last_event_id=dashboard.place
    ) as watching:
        await dashboard.follow(watching, complete)
    for job in jobs:
        assert dashboard.messages(job) == expected[job]
    assert not [event for event in dashboard.others if event.name == "gap"]


async def test_a_new_job_is_followed_from_its_first_line(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    await states.set_state("a")
    async with gateway.watch("events", include="jobs,logs", tail=0) as watching:
        await beginning(watching)
        await states.log("one", "two", job="b")
        await states.set_state("b")
        dashboard = Dashboard()
        await dashboard.follow(watching, lambda: dashboard.count() == 2)
        assert dashboard.messages("b") == ["one", "two"]
        assert [event.name for event in dashboard.others] == ["job"]


async def test_a_job_whose_log_is_denied_while_its_state_is_there_is_followed_later(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    await states.set_state("a")
    # As of a coordinator that is killed between a job's state and its log, and comes back.
    states.refusals["WatchJob"] = (grpc.StatusCode.NOT_FOUND, "no such job")
    async with gateway.watch("events", include="jobs,logs") as watching:
        await beginning(watching)
        await states.log("line", job="a")
        del states.refusals["WatchJob"]
        assert (await until(watching, "log"))[-1].data["message"] == "line"
        await states.delete("a")
        assert (await until(watching, "job_gone"))[-1].data["reason"] == "deleted"


async def test_a_job_that_comes_back_goes_on_where_it_was_left(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    await states.set_state("a")
    dashboard = Dashboard()
    async with gateway.watch("events", include="jobs,logs", status="TRAINING") as watching:
        await states.log("one", job="a")
        await dashboard.follow(watching, lambda: dashboard.count() == 1)
        await states.set_state("a", jobs_pb2.JOB_STATUS_PAUSED)
        await dashboard.follow(
            watching, lambda: any(event.name == "job_gone" for event in dashboard.others)
        )
        await states.log("two", job="a")
        await states.set_state("a")
        await dashboard.follow(watching, lambda: dashboard.count() == 2)
    assert dashboard.doubled == 0
    assert dashboard.messages("a") == ["one", "two"]


async def test_a_job_that_comes_back_comes_whole_to_who_never_had_it(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    for job in "ab":
        await states.set_state(job)
    await states.log("one", "two", job="a")
    early, late = Dashboard(), Dashboard()
    selection: dict[str, Any] = {"status": "TRAINING", "include": "logs", "tail": 100}
    async with gateway.watch("events", **selection) as first:
        await early.follow(first, partial(early.has, 2))
        await states.set_state("a", jobs_pb2.JOB_STATUS_PAUSED)
        async with gateway.watch("events", **selection) as second:
            await beginning(second)
            await states.log("other", job="b")
            await early.follow(first, partial(early.has, 3))
            await late.follow(second, partial(late.has, 1))
            # With the bookmark behind it, each has everything, and looks for others at its place.
            await until(first, "bookmark")
            await until(second, "bookmark")
            await states.set_state("a")
            await states.log("three", job="a")
            await early.follow(first, partial(early.has, 4))
            await late.follow(second, lambda: "three" in late.messages("a"))
    assert early.messages("a") == late.messages("a") == ["one", "two", "three"]
    assert early.doubled == late.doubled == 0


async def test_the_end_of_a_job_ends_its_log_and_not_the_stream(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    for job in "ab":
        await states.set_state(job)
    async with gateway.watch("events", include="logs") as watching:
        await beginning(watching)
        await states.log("last", job="a")
        await states.end("a")
        end = (await until(watching, "end"))[-1]
        assert end.data == {"job_id": "a", "epoch": "e1", "offset": 1, "status": "COMPLETED"}
        await states.log("goes on", job="b")
        assert (await until(watching, "log"))[-1].data["job_id"] == "b"
        place = (await until(watching, "bookmark"))[-1].id
    async with gateway.watch("events", include="logs", last_event_id=place) as watching:
        await beginning(watching)
        end = (await until(watching, "end"))[-1]
        assert end.data["offset"] == 1
        assert "log" not in [event.name for event in watching.events]


async def test_metrics_come_once_an_interval_and_never_twice(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    for job in "ab":
        await states.set_state(job)
        await states.snapshot(3, job=job, loss=0.5)
    async with gateway.watch("events", include="metrics", interval=1) as watching:
        await beginning(watching)
        first = [await news(watching), await news(watching)]
        assert {each.data["job_id"] for each in first} == {"a", "b"}
        assert first[0].data["epoch"] == "e1"
        assert first[0].data["sequence"] == 3
        await states.snapshot(4, job="a")
        await states.snapshot(5, job="a")
        event = (await until(watching, "metrics"))[-1]
        while event.data["sequence"] != 5:
            event = (await until(watching, "metrics"))[-1]
        place = (await until(watching, "bookmark"))[-1].id
    async with gateway.watch("events", include="metrics", last_event_id=place) as watching:
        await beginning(watching)
        await states.snapshot(6, job="b")
        assert (await until(watching, "metrics"))[-1].data["sequence"] == 6
    told = [
        (each.data["job_id"], each.data["sequence"])
        for each in watching.events
        if each.name == "metrics"
    ]
    assert told == [("b", 6)]


async def test_a_log_that_was_lost_is_told_and_the_new_one_is_sent(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many(linger=0)
    await states.set_state("a")
    await states.log("old", job="a")
    dashboard = Dashboard()
    async with gateway.watch("events", include="logs", tail=10) as watching:
        await dashboard.follow(watching, lambda: dashboard.count() == 1)
        while dashboard.others[-1].name != "x" and watching.events[-1].name != "bookmark":
            dashboard.take(await watching.next())
    await states.until(0)
    await states.recreate("e2", job="a")
    await states.log("new", "newer", job="a")
    async with gateway.watch("events", include="logs", last_event_id=dashboard.place) as watching:
        await dashboard.follow(watching, lambda: len(dashboard.messages("a", "e2")) == 2)
    gaps = [event.data for event in dashboard.others if event.name == "gap"]
    assert [(gap["job_id"], gap["epoch"], gap["offset"], gap["reason"]) for gap in gaps] == [
        ("a", "e2", 0, "unknown_epoch")
    ]


async def test_dashboards_at_the_head_get_the_same_bytes(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    jobs = [f"job{number}" for number in range(5)]
    for job in jobs:
        await states.set_state(job)
    async with AsyncExitStack() as open_streams:
        dashboards = [
            await open_streams.enter_async_context(
                gateway.watch("events", include="jobs,logs", tail=0)
            )
            for _ in range(30)
        ]
        for each in dashboards:
            await beginning(each)
        for _ in range(3):
            for job in jobs:
                await states.log("line", job=job)
            for each in dashboards:
                await until(each, "bookmark")
        assert states.open_watches == len(jobs)
        assert states.open_states == 1
        assert gateway.seen.most_upstreams == len(jobs) + 1
        assert len(gateway.hub.events._table.cohorts) == 1
        marks = [len(each.received) for each in dashboards]
        await states.log("the same", job=jobs[0])
        tails = set()
        for each, mark in zip(dashboards, marks, strict=True):
            await until(each, "bookmark")
            tails.add(bytes(each.received[mark:]))
        assert len(tails) == 1


async def test_whoever_cannot_keep_up_is_told_so(states: StatesCoordinator, many: Maker) -> None:
    gateway = await many(history_bytes=64 * 1024, write_timeout=60, events_patience=0)
    for job in "ab":
        await states.set_state(job)
    async with (
        gateway.watch("events", include="logs", tail=0, receive_buffer=4096) as slow,
        gateway.watch("events", include="logs", tail=0) as quick,
    ):
        for each in (slow, quick):
            await beginning(each)
        dashboard, count = Dashboard(), 0
        for _ in range(40):
            messages = ["x" * 1000 for _ in range(200)]
            count += len(messages)
            await states.log(*messages, job="a")
            await dashboard.follow(quick, partial(dashboard.has, count))
        assert dashboard.doubled == 0
        await states.log("quiet", job="b")
        late = Dashboard()
        await late.follow(
            slow,
            lambda: bool(late.messages("b")) and max(late.lines["a", "e1"], default=0) == count,
        )
    gaps = [event.data for event in late.others if event.name == "gap"]
    assert {gap["reason"] for gap in gaps} == {"lagging"}
    told = set(late.lines["a", "e1"])
    for gap in gaps:
        first, last = (int(gap[name].partition(":")[2]) for name in ("from", "to"))
        assert not told & set(range(first, last + 1))
        told |= set(range(first, last + 1))
    assert told == set(range(1, count + 1))


async def test_a_chatty_job_never_starves_a_quiet_one(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    for job in ("chatty", "quiet"):
        await states.set_state(job)
    await states.log(*("x" * 500 for _ in range(20_000)), job="chatty")
    await states.log("heard", job="quiet")
    async with gateway.watch("events", include="logs", tail=20_000) as watching:
        await beginning(watching)
        dashboard = Dashboard()
        await dashboard.follow(watching, lambda: bool(dashboard.messages("quiet")))
        assert dashboard.count() < 2000
        await dashboard.follow(watching, lambda: dashboard.count() == 20_001)
    assert dashboard.doubled == 0


async def test_a_selection_that_grows_follows_the_newest_and_says_so(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many(events_followed=2)
    for job in "ab":
        await states.set_state(job)
    async with gateway.watch("events", include="logs", tail=0) as watching:
        await beginning(watching)
        await states.set_state("c")
        limit = (await until(watching, "limit"))[-1]
        assert limit.data == {"matching": 3, "states": 3, "followed": 2}
        for job in "abc":
            await states.log(job, job=job)
        dashboard = Dashboard()
        await dashboard.follow(watching, lambda: dashboard.count() == 2)
        assert {job for job, _ in dashboard.lines} == {"b", "c"}


async def test_level_and_filter_hold_for_all_jobs(states: StatesCoordinator, many: Maker) -> None:
    gateway = await many()
    for job in "ab":
        await states.set_state(job)
    async with gateway.watch("events", include="logs", level="ERROR") as watching:
        await beginning(watching)
        for job in "ab":
            await states.log("info", job=job)
            await states.log("error", level=watch_pb2.LOG_LEVEL_ERROR, job=job)
        dashboard = Dashboard()
        await dashboard.follow(watching, lambda: dashboard.count() == 2)
        assert dashboard.messages("a") == ["error"]
        assert dashboard.messages("b") == ["error"]


@pytest.mark.parametrize("condition", [{"contains": "loss"}, {"matches": "l.ss"}])
async def test_each_line_that_passes_a_filter_comes_once(
    states: StatesCoordinator, many: Maker, condition: dict[str, str]
) -> None:
    gateway = await many()
    for job in "ab":
        await states.set_state(job)
        await states.log("loss before", "nothing", job=job)
    query: dict[str, Any] = {"include": "logs", "tail": 5, **condition}
    dashboard = Dashboard()
    async with gateway.watch("events", **query) as watching:
        for number in range(50):
            for job in "ab":
                await states.log(f"loss {number}", f"step {number}", job=job)
        await dashboard.follow(watching, partial(dashboard.has, 102))
        while watching.events[-1].name != "bookmark":
            dashboard.take(await watching.next())
    for job in "ab":
        await states.log("loss later", "more", job=job)
    async with gateway.watch("events", **query, last_event_id=dashboard.place) as watching:
        await dashboard.follow(watching, partial(dashboard.has, 104))
    assert dashboard.doubled == 0
    assert all("loss" in line for line in [*dashboard.messages("a"), *dashboard.messages("b")])


async def test_too_many_filters_are_429(states: StatesCoordinator, many: Maker) -> None:
    gateway = await many(max_filters_per_user=1)
    await states.set_state("a")
    async with (
        gateway.watch("events", include="logs", contains="one") as first,
        gateway.watch("events", include="logs", contains="one") as second,
        gateway.watch("events", include="logs", contains="two") as third,
        gateway.watch("events", contains="two") as fourth,
    ):
        assert (first.status, second.status, fourth.status) == (200, 200, 200)
        assert (third.status, third.error["code"]) == (429, "RATE_LIMITED")


async def test_a_stream_without_jobs_counts_its_filter_for_the_user(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many(max_filters_per_user=1)
    async with (
        gateway.watch("events", include="jobs,logs", contains="one") as first,
        gateway.watch("events", include="jobs,logs", contains="two") as second,
    ):
        assert (first.status, second.status) == (200, 429)
    async with asyncio.timeout(60):
        await gateway.hub.streams.none_left()
    async with gateway.watch("events", include="jobs,logs", contains="two") as third:
        assert third.status == 200


async def test_a_job_that_joins_with_too_many_filters_is_told_of_by_a_gap(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many(max_filters_per_job=1)
    async with (
        gateway.watch("events", include="logs", contains="x") as first,
        gateway.watch("events", include="logs", contains="y") as second,
    ):
        await beginning(first)
        await beginning(second)
        await states.set_state("a")
        await states.log("xy", job="a")
        told = {(await news(watching)).name: watching for watching in (first, second)}
        assert told.keys() == {"log", "gap"}
    async with asyncio.timeout(60):
        await gateway.hub.streams.none_left()
    # What nobody has any more counts no longer.
    assert not gateway.hub._filters._counts
    assert not gateway.hub._filters._uses


async def test_more_jobs_than_the_replica_can_watch_are_429(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many(max_feeds=2)
    for job in "abc":
        await states.set_state(job)
    async with gateway.watch("events", include="logs") as watching:
        assert (watching.status, watching.error["code"]) == (429, "RATE_LIMITED")
    async with gateway.watch("events") as watching:
        assert watching.status == 200


async def test_a_replica_that_stops_sends_its_clients_away(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many(drain_spread=1)
    await states.set_state("a")
    async with gateway.watch("events", include="jobs,logs") as watching:
        await beginning(watching)
        await gateway.hub.close()
        error = (await until(watching, "error"))[-1]
        assert (error.data["code"], error.data["retryable"]) == ("SHUTTING_DOWN", True)
        assert error.retry is not None
        await watching.rest()
    # The coordinator learns of it a moment later.
    async with asyncio.timeout(60):
        await states.until_states(0)
