"""A coordinator without WatchJobs: jobs that are named are watched all the same."""

from collections.abc import AsyncIterator

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
