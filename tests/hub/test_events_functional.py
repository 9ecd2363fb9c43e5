"""The stream over many jobs, over real sockets and real gRPC: states, then changes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from app.hub.selection.view import SelectionView
from generated.mindcoordinator.v1 import jobs_pb2
from tests.hub.client import Watching
from tests.hub.conftest import Gateway, gateway_to
from tests.hub.log_coordinator import Context
from tests.hub.sse import Event
from tests.hub.states_coordinator import StatesCoordinator, tells_states

Maker = Callable[..., Awaitable[Gateway]]


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


async def until(watching: Watching, name: str) -> list[Event]:
    """The events up to the first of this name, which is the last of them."""
    async with asyncio.timeout(60):
        events = [await watching.next()]
        while events[-1].name != name:
            events.append(await watching.next())
    return events


async def beginning(watching: Watching) -> tuple[list[Event], str]:
    """The events up to `synced`, and the id of the bookmark that follows at once."""
    events = await until(watching, "synced")
    bookmark = await watching.next()
    assert bookmark.name == "bookmark"
    return events, bookmark.id


async def news(watching: Watching) -> Event:
    """The next event that is no bookmark, which comes in between when some time has passed."""
    async with asyncio.timeout(60):
        while (event := await watching.next()).name == "bookmark":
            pass
    return event


def jobs_of(events: list[Event]) -> list[str]:
    return [event.data["job_id"] for event in events if event.name == "job"]


async def test_the_state_comes_first_then_a_bookmark_then_changes(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    await states.set_state("a", labels={"team": "nlp"}, user_id="ann", message="runs")
    await states.set_state("b", jobs_pb2.JOB_STATUS_QUEUED)
    async with gateway.watch("events") as watching:
        events, place = await beginning(watching)
        assert [event.name for event in events] == ["job", "job", "synced"]
        assert events[0].retry == 100
        told = events[0].data
        assert {name: told[name] for name in ("job_id", "status", "message", "labels")} == {
            "job_id": "a",
            "status": "TRAINING",
            "message": "runs",
            "labels": {"team": "nlp"},
        }
        assert events[-1].data == {"jobs": 2}
        assert len(place) <= 3072
        await states.set_state("b", jobs_pb2.JOB_STATUS_TRAINING)
        changed = await news(watching)
        assert (changed.name, changed.data["job_id"], changed.data["status"]) == (
            "job",
            "b",
            "TRAINING",
        )
        await states.set_state("c")
        assert jobs_of([await news(watching)]) == ["c"]
        later = await until(watching, "bookmark")
        assert later[-1].id != place


async def test_a_job_that_no_longer_matches_leaves(states: StatesCoordinator, many: Maker) -> None:
    gateway = await many()
    await states.set_state("a")
    await states.set_state("b")
    async with gateway.watch("events", status="TRAINING") as watching:
        await beginning(watching)
        await states.set_state("a", jobs_pb2.JOB_STATUS_PAUSED)
        gone = await news(watching)
        assert (gone.name, gone.data) == ("job_gone", {"job_id": "a", "reason": "left"})
        await states.delete("b")
        gone = (await until(watching, "job_gone"))[-1]
        assert gone.data == {"job_id": "b", "reason": "deleted"}


async def test_on_resume_only_changes_come(states: StatesCoordinator, many: Maker) -> None:
    first, second = await many(), await many()
    for job in "abcd":
        await states.set_state(job)
    async with first.watch("events", status="TRAINING") as watching:
        _, place = await beginning(watching)
    await states.set_state("a", message="changed")
    await states.set_state("b", jobs_pb2.JOB_STATUS_PAUSED)
    await states.delete("c")
    async with second.watch("events", status="TRAINING", last_event_id=place) as watching:
        events, later = await beginning(watching)
        assert [(event.name, event.data.get("job_id")) for event in events] == [
            ("job", "a"),
            ("job_gone", "b"),
            ("job_gone", "c"),
            ("synced", None),
        ]
    async with second.watch("events", status="TRAINING", last_event_id=later) as watching:
        events, _ = await beginning(watching)
        assert [event.name for event in events] == ["synced"]


async def test_a_place_that_the_record_does_not_reach_is_reset(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many(linger=0)
    await states.set_state("a")
    async with gateway.watch("events") as watching:
        _, place = await beginning(watching)
    await states.until_states(0)
    await states.set_state("b")
    states.forgotten = states.version
    async with gateway.watch("events", last_event_id=place) as watching:
        events, _ = await beginning(watching)
        assert [event.name for event in events] == ["reset", "job", "job", "synced"]
        assert events[0].data == {"reason": "too_old"}
        place = (await gateway_place(gateway))[1]
    await states.until_states(0)
    await states.lose_record("s2")
    async with gateway.watch("events", last_event_id=place) as watching:
        events, _ = await beginning(watching)
        assert events[0].data == {"reason": "epoch_changed"}
        assert jobs_of(events) == ["a", "b"]


async def gateway_place(gateway: Gateway) -> tuple[list[Event], str]:
    async with gateway.watch("events") as watching:
        return await beginning(watching)


async def test_streams_of_a_tenant_share_one_call_and_its_bytes(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    await states.set_state("a")
    async with AsyncExitStack() as open_streams:
        dashboards = [
            await open_streams.enter_async_context(gateway.watch("events")) for _ in range(20)
        ]
        for each in dashboards:
            await beginning(each)
        assert states.open_states == 1
        table = gateway.hub.events._table
        await states.set_state("b")
        for each in dashboards:
            assert jobs_of([await news(each)]) == ["b"]
            await until(each, "bookmark")
        assert len(table.cohorts) == 1
    await states.until_states(0)


async def test_without_watch_jobs_only_named_jobs_are_served(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    states.refusals["WatchJobs"] = (grpc.StatusCode.UNIMPLEMENTED, "no such call")
    await states.set_state("a")
    asked: list[dict[str, Any]] = [
        {},
        {"status": "TRAINING"},
        {"job_id": "a", "include": "jobs,queue"},
    ]
    for query in asked:
        async with gateway.watch("events", **query) as watching:
            assert (watching.status, watching.error["code"]) == (501, "NOT_IMPLEMENTED")
            assert "WatchJobs" in watching.error["message"]


async def test_of_many_named_jobs_that_are_missing_only_a_few_are_asked_for(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many(events_followed=20)
    await states.set_state("a")
    at_work = most = asked = 0
    enough = asyncio.Event()

    async def count(method: str, job_id: str, context: Context) -> None:
        nonlocal at_work, most, asked
        if method == "GetJob":
            asked += 1
            at_work += 1
            most = max(most, at_work)
            if at_work == 8:
                enough.set()
            await enough.wait()
            at_work -= 1
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such job")

    states._admit = count  # type: ignore[method-assign]
    names = "&job_id=".join(["a", *(f"x{number:03}" for number in range(100))])
    async with gateway.watch("events", job_id=names) as watching:
        events, _ = await beginning(watching)
    assert jobs_of(events) == ["a"]
    assert [event.data["reason"] for event in events[1:-1]] == ["unknown"] * 100
    assert (asked, most) == (20, 8)


async def test_limits_are_told_with_both_numbers(states: StatesCoordinator, many: Maker) -> None:
    gateway = await many(events_jobs=3, events_followed=2)
    for job in "abc":
        await states.set_state(job)
    async with gateway.watch("events", include="jobs,logs") as watching:
        assert watching.status == 422
        [problem] = watching.error["details"]
        assert "3 jobs" in problem["message"]
        assert "2" in problem["message"]
    await states.set_state("d")
    async with gateway.watch("events") as watching:
        assert watching.status == 422
        [problem] = watching.error["details"]
        assert "4 jobs" in problem["message"]
        assert "3" in problem["message"]


async def test_a_selection_that_grows_beyond_the_limit_tells_of_the_newest_and_says_so(
    states: StatesCoordinator, many: Maker
) -> None:
    first, second = await many(events_jobs=3), await many(events_jobs=3)
    for job in "abc":
        await states.set_state(job)
    async with first.watch("events", label="x=1") as other, first.watch("events") as watching:
        await beginning(other)
        events, place = await beginning(watching)
        assert jobs_of(events) == ["a", "b", "c"]
        await states.set_state("d")
        events = await until(watching, "limit")
        assert [(event.name, event.data.get("job_id")) for event in events] == [
            ("bookmark", None),
            ("job", "d"),
            ("job_gone", "a"),
            ("limit", None),
        ]
        assert events[2].data["reason"] == "limit"
        assert events[3].data == {"matching": 4, "states": 3, "followed": 0}
        # Whoever knows only what came before the limit is not left with too much, or too little.
        before, later = events[0].id, (await until(watching, "bookmark"))[-1].id
    for each in (place, before, later):
        async with second.watch("events", last_event_id=each) as watching:
            events, _ = await beginning(watching)
            assert events[0].data == {"reason": "limit"}
            assert jobs_of(events) == ["b", "c", "d"]
            assert (await news(watching)).name == "limit"
    await states.delete("d")
    async with second.watch("events", last_event_id=later) as watching:
        events, now = await beginning(watching)
        assert (events[0].name, jobs_of(events)) == ("reset", ["a", "b", "c"])
    async with first.watch("events", last_event_id=now) as watching:
        assert [event.name for event in (await beginning(watching))[0]] == ["synced"]


async def test_a_place_of_another_selection_is_refused(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    await states.set_state("a")
    _, place = await gateway_place(gateway)
    others: list[dict[str, Any]] = [{"status": "TRAINING"}, {"include": "jobs,nodes"}]
    for query in others:
        async with gateway.watch("events", last_event_id=place, **query) as watching:
            assert (watching.status, watching.error["code"]) == (400, "MALFORMED_REQUEST")
    async with gateway.watch("events", last_event_id="nonsense") as watching:
        assert watching.status == 400


async def test_nodes_and_the_queue_come_first_and_on_change(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    await states.set_state("a")
    await states.set_node("n1", total_gpus=8)
    await states.set_queue(3)
    async with gateway.watch("events") as plain:
        await beginning(plain)
        async with gateway.watch("events", include="nodes,queue") as watching:
            events, place = await beginning(watching)
            assert [event.name for event in events] == ["node", "queue", "synced"]
            assert (events[0].data["node_id"], events[0].data["total_gpus"]) == ("n1", 8)
            assert events[1].data["total_queued"] == 3
            # The tenant's call was renewed for them, and is still one.
            assert states.open_states == 1
            assert states.states_requests[-1].after.version == states.version
            for total in (4, 5, 6):
                await states.set_queue(total)
            await states.set_node("n2")
            told = await until(watching, "bookmark")
            while not any(event.data.get("total_queued") == 6 for event in told):
                told += await until(watching, "bookmark")
            queues = [event for event in told if event.name == "queue"]
            assert len(queues) < 3
            assert [event.data["node_id"] for event in told if event.name == "node"] == ["n2"]
        await states.set_state("b")
        assert jobs_of([await news(plain)]) == ["b"]
    async with gateway.watch("events", include="nodes,queue", last_event_id=place) as watching:
        events, _ = await beginning(watching)
        assert [event.name for event in events] == ["node", "node", "queue", "synced"]


async def test_jobs_leave_that_ended_too_long_ago(states: StatesCoordinator, many: Maker) -> None:
    gateway = await many()
    now = int(time.time())
    ended = jobs_pb2.JOB_STATUS_COMPLETED
    await states.set_state("long ago", ended, ended_at=now - 4000)
    await states.set_state("recent", ended, ended_at=now - 3598)
    await states.set_state("live")
    async with gateway.watch("events") as watching:
        events, place = await beginning(watching)
        assert jobs_of(events) == ["recent", "live"]
        gone = await news(watching)
        assert (gone.name, gone.data) == ("job_gone", {"job_id": "recent", "reason": "left"})
    # The same for who was away meanwhile.
    async with gateway.watch("events", last_event_id=place) as watching:
        events, _ = await beginning(watching)
        assert [(each.name, each.data.get("job_id")) for each in events] == [
            ("job_gone", "recent"),
            ("synced", None),
        ]


async def test_conditions_select(states: StatesCoordinator, many: Maker) -> None:
    gateway = await many()
    await states.set_state("a", user_id="ann", labels={"team": "nlp", "kind": "x"})
    await states.set_state("b", user_id="bob", labels={"team": "nlp"})
    await states.set_state("c", jobs_pb2.JOB_STATUS_QUEUED, user_id="ann")
    asked: dict[str, list[str]] = {
        "job_id=a&job_id=c": ["a", "c"],
        "status=TRAINING": ["a", "b"],
        "label=team=nlp": ["a", "b"],
        "label=team=nlp&label=kind=x": ["a"],
        "user_id=ann": ["a", "c"],
        "user_id=ann&status=QUEUED": ["c"],
        "ended_after=2030-01-01T00:00:00Z": ["a", "b", "c"],
        "include=nodes": [],
    }
    for query, expected in asked.items():
        name, _, value = query.partition("=")
        async with gateway.watch("events", **{name: value}) as watching:  # type: ignore[arg-type]
            events, _ = await beginning(watching)
            assert jobs_of(events) == expected, query
    for wrong in ("label=team", "ended_after=soon", "include=everything", "status=RUNS"):
        name, _, value = wrong.partition("=")
        async with gateway.watch("events", **{name: value}) as watching:  # type: ignore[arg-type]
            assert (watching.status, watching.error["code"]) == (422, "VALIDATION_ERROR")


async def test_a_coordinator_that_breaks_off_costs_nothing(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many()
    await states.set_state("a")
    async with gateway.watch("events") as watching:
        await beginning(watching)
        await states.stop()
        await states.set_state("b")
        await states.delete("a")
        await states.start()
        told = await until(watching, "job_gone")
        assert jobs_of(told) == ["b"]
        # Another record: everything that was known is void.
        await states.lose_record("s2")
        await states.stop()
        await states.set_state("c")
        await states.start()
        told = await until(watching, "reset")
        told = await until(watching, "synced")
        assert jobs_of(told) == ["b", "c"]
        assert (await watching.next()).name == "bookmark"


async def test_a_coordinator_that_stays_away_ends_the_stream(
    states: StatesCoordinator, many: Maker
) -> None:
    gateway = await many(outage_limit=0.3)
    await states.set_state("a")
    async with gateway.watch("events") as watching:
        await beginning(watching)
        await states.stop()
        error = (await until(watching, "error"))[-1]
        assert error.data == {
            "error": "stream ended",
            "code": "COORDINATOR_UNAVAILABLE",
            "retryable": True,
        }
        await watching.rest()
    await states.start()


async def test_a_selection_that_cannot_be_looked_at_ends_its_streams_alone(
    states: StatesCoordinator, many: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await many()
    await states.set_state("a")
    look = SelectionView.look

    def fail_for_one(view: SelectionView, now: float) -> bool:
        if view.selection.job_ids:
            raise RuntimeError("bug")
        return look(view, now)

    monkeypatch.setattr(SelectionView, "look", fail_for_one)
    with capture_logs() as lines:
        async with gateway.watch("events") as well, gateway.watch("events", job_id="a") as broken:
            await beginning(well)
            error = (await until(broken, "error"))[-1]
            assert (error.data["code"], error.data["retryable"]) == ("INTERNAL_ERROR", True)
            await broken.rest()
            await states.set_state("b")
            assert jobs_of(await until(well, "job")) == ["b"]
    assert "hub_events_look_failed" in [line["event"] for line in lines]


async def test_the_regular_round_survives_a_fault_of_a_part(
    many: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await many()
    rounds, again = [0], asyncio.Event()

    def fail(now: float, wall: float) -> None:
        raise RuntimeError("bug")

    def count(now: float, wall: float) -> None:
        rounds[0] += 1
        if rounds[0] == 2:
            again.set()

    monkeypatch.setattr(gateway.hub.events, "sweep", fail)
    monkeypatch.setattr(gateway.hub.searches, "sweep", count)
    async with asyncio.timeout(60):
        await again.wait()
