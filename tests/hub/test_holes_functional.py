"""Entries that the log has lost: every watcher is told of them, whatever its filter."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from generated.mindcoordinator.v1 import watch_pb2
from tests.hub.conftest import Gateway, GatewayMaker
from tests.hub.log_coordinator import JOB, LogCoordinator

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def lines(start: int, stop: int) -> list[str]:
    return [f"line {number}" for number in range(start, stop)]


async def log_errors(coordinator: LogCoordinator, start: int, stop: int) -> None:
    """Append entries that pass every filter."""
    await coordinator.log(*lines(start, stop), level=watch_pb2.LOG_LEVEL_ERROR)


def gap(first: int, last: int) -> dict[str, str]:
    return {"from": f"e1:{first}", "to": f"e1:{last}", "reason": "missing"}


@pytest.mark.parametrize("level", LEVELS)
async def test_a_live_watcher_is_told_of_a_hole_in_the_stream(
    gateway: Gateway, coordinator: LogCoordinator, level: str
) -> None:
    coordinator.jobs[JOB].lost = {4, 5}
    await log_errors(coordinator, 1, 4)
    async with gateway.watch(level=level) as watching:
        assert await watching.logs(3) == lines(1, 4)
        await log_errors(coordinator, 4, 8)
        missing = await watching.next_named("gap")
        assert (missing.data, missing.id) == (gap(4, 5), "e1:5")
        assert await watching.logs(2) == lines(6, 8)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("history_tail", [0, 100])
async def test_a_client_that_comes_back_is_told_of_a_hole_that_it_missed(
    make_gateway: GatewayMaker, coordinator: LogCoordinator, level: str, history_tail: int
) -> None:
    gateway = await make_gateway(history_tail=history_tail)
    coordinator.jobs[JOB].lost = {4, 5, 8}
    await log_errors(coordinator, 1, 11)
    await coordinator.end()
    async with gateway.watch(level=level, headers={"Last-Event-ID": "e1:2"}) as watching:
        assert await watching.logs(1) == ["line 3"]
        assert (await watching.next_named("gap")).data == gap(4, 5)
        assert await watching.logs(2) == lines(6, 8)
        assert (await watching.next_named("gap")).data == gap(8, 8)
        assert await watching.logs(2) == lines(9, 11)
        assert (await watching.next_named("end")).id == "e1:10"


@pytest.mark.parametrize("level", LEVELS)
async def test_a_tail_is_told_of_a_hole_within_it(
    make_gateway: GatewayMaker, coordinator: LogCoordinator, level: str
) -> None:
    gateway = await make_gateway(history_tail=2)
    coordinator.jobs[JOB].lost = {1, 2, 5}
    await log_errors(coordinator, 1, 11)
    await coordinator.end()
    async with gateway.watch(level=level, tail=1000) as watching:
        assert (await watching.next_named("gap")).data == gap(1, 2)
        assert await watching.logs(2) == lines(3, 5)
        assert (await watching.next_named("gap")).data == gap(5, 5)
        assert await watching.logs(5) == lines(6, 11)
        assert (await watching.next_named("end")).id == "e1:10"


async def test_a_hole_at_the_head_is_told_when_the_stream_does_not_bring_what_it_owes(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    # On a busy machine, the first stream may take a while to begin.
    gateway = await make_gateway(message_timeout=4)
    await log_errors(coordinator, 1, 4)
    async with AsyncExitStack() as stack:
        watching = [await stack.enter_async_context(gateway.watch(level=level)) for level in LEVELS]
        for each in watching:
            assert await each.logs(3) == lines(1, 4)
        await coordinator.stop()
        coordinator.jobs[JOB].lost = {4, 5}
        await log_errors(coordinator, 4, 6)
        await coordinator.start()
        for each in watching:
            assert (await each.next_named("gap")).data == gap(4, 5)
        await log_errors(coordinator, 6, 7)
        for each in watching:
            assert await each.logs(1) == ["line 6"]


@pytest.mark.parametrize("timeouts", [{"message_timeout": 4}, {"open_timeout": 8}])
async def test_a_job_whose_head_is_lost_can_be_watched(
    make_gateway: GatewayMaker, coordinator: LogCoordinator, timeouts: dict[str, float]
) -> None:
    gateway = await make_gateway(**timeouts)
    coordinator.jobs[JOB].lost = {4, 5}
    await log_errors(coordinator, 1, 6)
    async with gateway.watch() as watching:
        assert await watching.logs(3) == lines(1, 4)
        assert (await watching.next_named("gap")).data == gap(4, 5)
        await log_errors(coordinator, 6, 7)
        assert await watching.logs(1) == ["line 6"]


@pytest.mark.parametrize("level", LEVELS)
async def test_a_log_whose_last_entries_are_lost_has_an_end(
    gateway: Gateway, coordinator: LogCoordinator, level: str
) -> None:
    coordinator.jobs[JOB].lost = {4, 5}
    await log_errors(coordinator, 1, 4)
    async with gateway.watch(level=level) as watching:
        assert await watching.logs(3) == lines(1, 4)
        await log_errors(coordinator, 4, 6)
        await coordinator.end()
        assert (await watching.next_named("gap")).data == gap(4, 5)
        end = await watching.next_named("end")
        assert (end.id, end.data["status"]) == ("e1:5", "COMPLETED")


async def test_pages_that_lead_nowhere_are_asked_for_with_pauses_and_end_the_stream(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(history_tail=0, outage_limit=2)
    await coordinator.log(*lines(1, 11))
    coordinator.page = watch_pb2.ListJobLogsResponse(
        epoch="e1", first_offset=1, last_offset=10, next_after_offset=2
    )
    async with gateway.watch(headers={"Last-Event-ID": "e1:2"}) as watching:
        error = await watching.next_named("error")
        assert error.id == "e1:2"
        assert error.data["code"] == "COORDINATOR_ERROR"
        assert error.data["retryable"] is True
    assert 2 <= len(coordinator.reads) < 50


async def test_pages_of_another_log_are_not_read_without_end(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(history_tail=0, open_timeout=0.5)
    await coordinator.log(*lines(1, 11))
    coordinator.page = watch_pb2.ListJobLogsResponse(
        epoch="e2", first_offset=1, last_offset=10, next_after_offset=10
    )
    async with gateway.watch(tail=5) as watching:
        assert watching.status == 504
    async with asyncio.timeout(60):
        await coordinator.until(watches=0)
    assert len(coordinator.reads) < 20
