"""Streams of a job that is deleted while it is watched."""

import asyncio

import grpc
import pytest

from app.hub import deletion
from app.hub.close_reasons import CloseReason
from tests.hub.conftest import Gateway, GatewayMaker
from tests.hub.log_coordinator import JOB, LogCoordinator

KiB = 1024
GONE = (grpc.StatusCode.NOT_FOUND, "the job does not exist")


async def ended_and_long(coordinator: LogCoordinator) -> None:
    """More than a socket takes."""
    for _ in range(40):
        await coordinator.log(*("x" * 180 for _ in range(1000)))
    await coordinator.end()


def delete(coordinator: LogCoordinator) -> None:
    for call in ("GetJob", "WatchJob", "ListJobLogs", "GetJobMetrics"):
        coordinator.refusals[call] = GONE


async def test_who_is_still_reading_is_told_that_the_job_was_deleted(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await ended_and_long(coordinator)
    async with gateway.watch(last_event_id="e1:1", receive_buffer=4 * KiB) as slow:
        assert (await slow.next()).name == "bookmark"
        delete(coordinator)
        gateway.hub.job_deleted("rival", JOB)
        gateway.hub.job_deleted("acme", "job-2")
        assert gateway.seen.reasons == []
        gateway.hub.job_deleted("acme", JOB)
        async with gateway.watch() as late:
            assert (late.status, late.error["code"]) == (404, "JOB_NOT_FOUND")
        last = (await slow.rest())[-1]
        assert last.name == "error"
        assert (last.data["code"], last.data["retryable"]) == ("JOB_DELETED", False)
    assert gateway.seen.reasons == [CloseReason.JOB_DELETED]


async def test_a_page_that_is_no_longer_there_ends_the_streams_of_all_watchers(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(history_bytes=64 * KiB)
    await ended_and_long(coordinator)
    async with (
        gateway.watch(last_event_id="e1:1", receive_buffer=4 * KiB) as first,
        gateway.watch(last_event_id="e1:1", receive_buffer=4 * KiB) as second,
    ):
        for each in (first, second):
            assert (await each.next()).name == "bookmark"
        delete(coordinator)
        for each in (first, second):
            last = (await each.rest())[-1]
            assert last.name == "error"
            assert last.data["code"] == "JOB_DELETED"
    assert gateway.seen.reasons == [CloseReason.JOB_DELETED] * 2


async def test_a_job_that_another_replica_deleted_is_noticed_while_it_is_read(
    gateway: Gateway, coordinator: LogCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "INTERVAL", 0.05)
    await ended_and_long(coordinator)
    async with gateway.watch(last_event_id="e1:1", receive_buffer=4 * KiB) as slow:
        assert (await slow.next()).name == "bookmark"
        async with coordinator.changed:
            await coordinator.changed.wait_for(lambda: len(coordinator.reads) > 3)
        delete(coordinator)
        async with asyncio.timeout(60):
            while not [each for each in gateway.hub.streams if each.closing]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the client is not to read before
        last = (await slow.rest())[-1]
        assert (last.name, last.data["code"]) == ("error", "JOB_DELETED")
    assert gateway.seen.reasons == [CloseReason.JOB_DELETED]
