"""A coordinator without WatchJobs: jobs that are named are watched all the same."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
from structlog.testing import capture_logs

from app.bridge.streams.watch_jobs import WatchJobsClient
from generated.mindcoordinator.v1 import jobs_pb2
from tests.hub.conftest import GatewayMaker
from tests.hub.log_coordinator import LogCoordinator, one_job
from tests.hub.test_events_functional import beginning, until


@pytest.fixture
async def coordinator() -> AsyncIterator[LogCoordinator]:
    async with one_job() as running:
        for job in "ab":
            running.jobs[job]
        yield running


async def test_named_jobs_are_told_with_every_new_status(
    coordinator: LogCoordinator, make_gateway: GatewayMaker
) -> None:
    gateway = await make_gateway()
    async with (
        gateway.watch("events", job_id="a&job_id=b&job_id=none", include="jobs,logs") as watching,
        gateway.watch("events", job_id="a&job_id=b&job_id=none", include="jobs,logs") as second,
    ):
        events, place = await beginning(watching)
        assert [(event.name, event.data.get("job_id")) for event in events] == [
            ("job", "a"),
            ("job", "b"),
            ("job_gone", "none"),
            ("synced", None),
        ]
        assert events[2].data["reason"] == "unknown"
        await beginning(second)
        assert coordinator.open_watches == 2
        await coordinator.log("line", job="a")
        assert (await until(watching, "log"))[-1].data["message"] == "line"
        await coordinator.end("a", jobs_pb2.JOB_STATUS_FAILED)
        changed = [event for event in await until(watching, "job") if event.name == "job"]
        assert changed[-1].data["status"] == "FAILED"
    async with gateway.watch(
        "events", job_id="a&job_id=b&job_id=none", include="jobs,logs", last_event_id=place
    ) as watching:
        events, _ = await beginning(watching)
        assert [event.name for event in events[:2]] == ["reset", "job"]
        assert (await until(watching, "log"))[-1].data["message"] == "line"


async def test_what_changes_without_a_status_is_told_and_each_job_is_read_once_for_all(
    coordinator: LogCoordinator, make_gateway: GatewayMaker
) -> None:
    gateway = await make_gateway(events_poll=0.1)
    queries = ["a&job_id=b", "a", "a&job_id=none"]
    async with AsyncExitStack() as running:
        streams = [
            await running.enter_async_context(gateway.watch("events", job_id=query))
            for query in queries
        ]
        for each in streams:
            await beginning(each)
        coordinator.messages["a"] = "step 7"
        for each in streams:
            told = (await until(each, "job"))[-1].data
            assert (told["job_id"], told["message"]) == ("a", "step 7")
        # The number of reads in a round does not grow with the streams.
        before = coordinator.reads_of.copy()
        await coordinator.until_read("b", before["b"] + 5)
        assert coordinator.reads_of["a"] <= before["a"] + 7
        assert coordinator.reads_of["none"] <= before["none"] + 1


async def test_a_poll_that_fails_is_made_again(
    coordinator: LogCoordinator, make_gateway: GatewayMaker
) -> None:
    gateway = await make_gateway(events_poll=0.1)
    async with gateway.watch("events", job_id="a") as watching:
        await beginning(watching)
        coordinator.refusals["GetJob"] = (grpc.StatusCode.UNAVAILABLE, "gone")
        await coordinator.until_read("a", coordinator.reads_of["a"] + 3)
        del coordinator.refusals["GetJob"]
        coordinator.messages["a"] = "back"
        assert (await until(watching, "job"))[-1].data["message"] == "back"


async def test_a_job_that_is_deleted_or_comes_later_is_told(
    coordinator: LogCoordinator, make_gateway: GatewayMaker
) -> None:
    gateway = await make_gateway(events_poll=0.1)
    async with gateway.watch("events", job_id="a&job_id=late") as watching:
        await beginning(watching)
        coordinator.jobs["late"]
        assert (await until(watching, "job"))[-1].data["job_id"] == "late"
        del coordinator.jobs["a"]
        gone = (await until(watching, "job_gone"))[-1]
        assert gone.data == {"job_id": "a", "reason": "deleted"}


async def test_none_of_the_named_jobs_is_404(
    coordinator: LogCoordinator, make_gateway: GatewayMaker
) -> None:
    gateway = await make_gateway()
    async with gateway.watch("events", job_id="none") as watching:
        assert (watching.status, watching.error["code"]) == (404, "JOB_NOT_FOUND")


async def test_more_named_jobs_than_can_be_watched_are_422(
    coordinator: LogCoordinator, make_gateway: GatewayMaker
) -> None:
    gateway = await make_gateway(events_followed=1)
    async with gateway.watch("events", job_id="a&job_id=b") as watching:
        assert watching.status == 422
        assert "2 jobs" in watching.error["details"][0]["message"]


async def test_a_fault_while_a_named_job_is_followed_ends_its_streams(
    coordinator: LogCoordinator, make_gateway: GatewayMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await make_gateway()

    async def fail(*_: object) -> None:
        raise RuntimeError("bug")

    with capture_logs() as lines:
        async with gateway.watch("events", job_id="a") as watching:
            await beginning(watching)
            with monkeypatch.context() as broken:
                broken.setattr(WatchJobsClient, "read_state", fail)
                await coordinator.end("a", jobs_pb2.JOB_STATUS_FAILED)
                error = (await until(watching, "error"))[-1]
            assert (error.data["code"], error.data["retryable"]) == ("INTERNAL_ERROR", True)
            await watching.rest()
    assert "hub_named_job_crashed" in [line["event"] for line in lines]
    async with gateway.watch("events", job_id="a") as watching:
        events, _ = await beginning(watching)
        assert [event.name for event in events] == ["job", "synced"]
