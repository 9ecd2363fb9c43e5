"""Searches of a log: what is found, how far it is, and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from app.hub.close_reasons import CloseReason
from app.hub.searching.search_watcher import SearchWatcher
from generated.mindcoordinator.v1 import logs_pb2, watch_pb2
from generated.mindcoordinator.v1.logs_pb2 import SearchJobLogsResponse
from tests.hub.conftest import Gateway, GatewayMaker
from tests.hub.log_coordinator import JOB, Context, LogCoordinator

EXHAUSTED = logs_pb2.SEARCH_END_EXHAUSTED


def match(offset: int, message: str = "loss nan", *spans: tuple[int, int], **more: Any) -> Any:
    return logs_pb2.LogMatch(
        entry=watch_pb2.LogEntry(
            offset=offset, level=watch_pb2.LOG_LEVEL_INFO, message=message, **more
        ),
        spans=[logs_pb2.LogSpan(start=start, end=end) for start, end in spans or ((0, 4),)],
    )


def part(
    scanned_to: int, *matches: Any, so_far: int = 0, end: Any = 0, epoch: str = "e1"
) -> SearchJobLogsResponse:
    return SearchJobLogsResponse(
        epoch=epoch,
        matches=matches,
        scanned_to=scanned_to,
        match_count=so_far + len(matches),
        scanned_bytes=1000 - scanned_to,
        end=end,
    )


async def test_matches_come_with_spans_and_progress_and_one_done(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    coordinator.found = [
        part(80, match(90, "a \u2028loss", (3, 7)), match(80)),
        part(40, so_far=2),
        part(1, match(7, rank=3), so_far=2, end=EXHAUSTED),
    ]
    async with gateway.search(contains="LOSS", rank=3, level="INFO", limit=9) as searching:
        events = await searching.rest()
    [request] = coordinator.searches
    assert (request.filter.contains, list(request.filter.ranks), request.limit) == ("LOSS", [3], 9)
    # What does not pass is not passed on, whoever says that it does.
    assert [each.data["entry"]["offset"] for each in events if each.name == "match"] == [7]
    coordinator.searches.clear()
    async with gateway.search(contains="loss") as searching:
        events = await searching.rest()
    matches = [each for each in events if each.name == "match"]
    assert [(each.id, each.data["spans"]) for each in matches] == [
        ("e1:90", [[3, 7]]),
        ("e1:80", [[0, 4]]),
        ("e1:7", [[0, 4]]),
    ]
    assert events[0].name == "progress"
    assert events[0].retry == 100
    assert [each.id for each in events if each.name == "progress"] == ["e1:91", "e1:80", "e1:40"]
    assert [each.name for each in events].count("done") == 1
    done = events[-1]
    assert (done.name, done.id) == ("done", "e1:0")
    assert done.data == {
        **{"scanned_to": 1, "scanned_bytes": 999, "matches": 3},
        **{"reason": "exhausted", "before": None},
    }
    assert set(gateway.seen.reasons) == {CloseReason.SEARCH_DONE}


@pytest.mark.parametrize(
    ("end", "reason"),
    [(logs_pb2.SEARCH_END_LIMIT, "limit"), (logs_pb2.SEARCH_END_BUDGET, "budget"), (77, "budget")],
)
async def test_a_search_that_ended_early_says_where_to_go_on(
    gateway: Gateway, coordinator: LogCoordinator, end: int, reason: str
) -> None:
    coordinator.found = [part(50, match(50), end=end)]
    async with gateway.search(contains="x", before=70) as searching:
        done = (await searching.rest())[-1]
    assert coordinator.searches[0].before_offset == 70
    assert (done.data["reason"], done.data["before"]) == (reason, 50)


async def test_progress_is_told_while_nothing_is_found(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    going_on = asyncio.Event()

    async def slow(
        _: logs_pb2.SearchJobLogsRequest, __: Context
    ) -> AsyncIterator[SearchJobLogsResponse]:
        yield part(90)
        await going_on.wait()
        yield part(1, end=EXHAUSTED)

    coordinator.search_stand_in = slow
    async with gateway.search(contains="x") as searching:
        for _ in range(2):
            await searching.next_named("progress")
        # As often as it is documented; how late one is tells of the machine.
        assert SearchWatcher.INTERVAL <= 0.25
        for _ in range(5):
            assert (await searching.next()).id == "e1:90"
        going_on.set()
        assert (await searching.rest())[-1].name == "done"


async def test_the_upstream_search_ends_when_the_client_leaves(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    left = asyncio.Event()

    async def endless(
        _: logs_pb2.SearchJobLogsRequest, __: Context
    ) -> AsyncIterator[SearchJobLogsResponse]:
        try:
            yield part(90)
            await asyncio.Event().wait()
        finally:
            left.set()

    coordinator.search_stand_in = endless
    async with gateway.search(contains="x") as searching:
        await searching.next()
    async with asyncio.timeout(60):
        await left.wait()
        await gateway.seen.left.wait()
    assert gateway.seen.reasons == [CloseReason.CLIENT_GONE]


async def test_a_search_that_breaks_off_can_be_continued(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    coordinator.found = [part(50, match(60)), (grpc.StatusCode.UNAVAILABLE, "away")]
    async with gateway.search(contains="x") as searching:
        error = (await searching.rest())[-1]
    assert (error.name, error.id) == ("error", "e1:50")
    assert (error.data["code"], error.data["retryable"]) == ("COORDINATOR_UNAVAILABLE", True)
    coordinator.found = [part(1, match(9), end=EXHAUSTED)]
    async with gateway.search(contains="x", headers={"Last-Event-ID": error.id}) as searching:
        events = await searching.rest()
    assert coordinator.searches[-1].before_offset == 50
    assert [each.id for each in events if each.name == "match"] == ["e1:9"]
    # And who has all of it is told to stop.
    async with gateway.search(contains="x", headers={"Last-Event-ID": events[-1].id}) as searching:
        assert searching.status == 204
    # Of a log that is no more, everything is searched.
    coordinator.found = [part(1, match(9), end=EXHAUSTED)]
    async with gateway.search(contains="x", headers={"Last-Event-ID": "old:50"}) as searching:
        assert (await searching.rest())[-1].name == "done"
    assert [each.before_offset for each in coordinator.searches[-2:]] == [50, 0]
    # One that ends without an end was broken off.
    coordinator.found = [part(50)]
    async with gateway.search(contains="x") as searching:
        assert (await searching.rest())[-1].data["code"] == "COORDINATOR_UNAVAILABLE"


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, 501, "NOT_IMPLEMENTED"),
        (grpc.StatusCode.NOT_FOUND, 404, "JOB_NOT_FOUND"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "RESOURCE_EXHAUSTED"),
        (grpc.StatusCode.UNAVAILABLE, 503, "COORDINATOR_UNAVAILABLE"),
    ],
)
async def test_a_search_that_cannot_begin_is_answered_by_a_status(
    gateway: Gateway, coordinator: LogCoordinator, code: grpc.StatusCode, status: int, told: str
) -> None:
    coordinator.refusals["SearchJobLogs"] = (code, "no")
    async with gateway.search(contains="x") as searching:
        assert (searching.status, searching.error["code"]) == (status, told)
    assert gateway.seen.watchers["search"] == 0


@pytest.mark.parametrize(
    "lie",
    [
        [part(50, match(60, "short", (2, 9)))],
        [part(50, match(60, "spans", (3, 4), (1, 2)))],
        [part(50, match(60), match(60))],
        [part(50, match(60), match(61))],
        [part(61, match(60))],
        [part(50), part(51)],
        [part(50, match(60)), part(40, match(55), so_far=1)],
        [part(50, match(60), so_far=3)],
        [part(50), part(40, epoch="e2")],
        [part(50, epoch="")],
        [part(50, *(match(160 - n) for n in range(101)))],
        [part(1, end=EXHAUSTED), part(1)],
    ],
)
async def test_what_breaks_the_contract_is_not_passed_on(
    gateway: Gateway, coordinator: LogCoordinator, lie: list[SearchJobLogsResponse]
) -> None:
    coordinator.found = [*lie, part(1, so_far=9, end=EXHAUSTED)]
    async with gateway.search(contains="x") as searching:
        if searching.status == 200:
            last = (await searching.rest())[-1]
            if lie[0].end == EXHAUSTED:
                # Nobody listens any more.
                assert last.name == "done"
                return
            assert (last.name, last.data["code"]) == ("error", "COORDINATOR_ERROR")
        else:
            assert (searching.status, searching.error["code"]) == (500, "COORDINATOR_ERROR")
    assert gateway.breaches


async def test_a_search_ends_with_its_token_and_with_this_replica(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    async def endless(
        _: logs_pb2.SearchJobLogsRequest, __: Context
    ) -> AsyncIterator[SearchJobLogsResponse]:
        yield part(90)
        await asyncio.Event().wait()

    coordinator.search_stand_in = endless
    gateway.log_in(expires_at=gateway.expiring(0.3))
    async with gateway.search(contains="x") as searching:
        last = (await searching.rest())[-1]
        assert (last.name, last.data["code"]) == ("error", "AUTH_EXPIRED")
    gateway.log_in(expires_at=None, credential_id="key-1")
    async with gateway.search(contains="x") as searching:
        await searching.next()
        assert "key-1" in gateway.hub.credentials()
        gateway.hub.revoke("key-1")
        assert (await searching.rest())[-1].data["code"] == "AUTH_EXPIRED"
    async with gateway.search(contains="x") as searching:
        await searching.next()
        await gateway.hub.close()
        last = (await searching.rest())[-1]
        assert (last.id, last.data["code"]) == ("e1:90", "SHUTTING_DOWN")


async def test_searches_count_as_streams(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(max_watchers_per_user=1)
    async with gateway.watch() as watching:
        assert watching.status == 200
        async with gateway.search(contains="x") as searching:
            assert searching.status == 429
    async with asyncio.timeout(60):
        await gateway.seen.left.wait()
    coordinator.found = [part(1, end=EXHAUSTED)]
    async with gateway.search(contains="x") as searching:
        assert searching.status == 200
        await searching.rest()
    async with gateway.search(job=JOB) as searching:
        assert searching.status == 422
