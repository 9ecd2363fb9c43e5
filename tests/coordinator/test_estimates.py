"""Estimated waits, with numbers that no job should have asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.coordinator.cluster.node_specs import NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.estimates import LONGEST, Forecast, RunTimes, forecast
from app.coordinator.scheduling.scheduler import Scheduler
from generated.mindcoordinator.v1.cluster_pb2 import GetClusterStatusRequest, ListNodesRequest
from generated.mindcoordinator.v1.jobs_pb2 import ListJobsRequest, SubmitJobRequest
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusRequest
from tests.coordinator.harness import client_of, running, submission
from tests.coordinator.scripts import WAITS

INT64 = 2**63 - 1


def record(job_id: str, *, max_runtime: int = 0, not_before: int = 0) -> JobRecord:
    """A job as it may be stored: nobody bounded what was asked for."""
    asked = SubmitJobRequest(name="job")
    asked.scheduling_config.max_runtime_seconds = max_runtime
    return JobRecord(
        job_id=job_id,
        tenant_id="other",
        user_id="u",
        name="job",
        submission=asked,
        resource_request=ResourceRequest(),
        created_at=1,
        updated_at=1,
        not_before=not_before,
    )


@given(
    runtimes=st.lists(st.integers(0, INT64), min_size=1, max_size=8),
    not_before=st.integers(0, INT64),
    seen=st.lists(st.floats(-1e300, 1e300), max_size=4),
)
def test_no_number_of_a_job_makes_a_wait_that_cannot_be_told(
    runtimes: list[int], not_before: int, seen: list[float]
) -> None:
    cluster = Cluster([NodeSpec("n", "n", 1, 1 << 30)])
    times = RunTimes()
    for seconds in seen:
        times.add_seconds("default", seconds)
    jobs = [
        replace(record(f"j{n}", max_runtime=each, not_before=not_before), status=Status.QUEUED)
        for n, each in enumerate(runtimes)
    ]
    seen_now = forecast(cluster, jobs[:4], [], times, 1_000)
    for rank, job in enumerate(jobs):
        assert 0 <= seen_now.wait(job, rank=rank, now=1_000) <= LONGEST


async def test_a_stored_job_with_any_limit_of_time_breaks_no_call_of_others(
    tmp_path: Path,
) -> None:
    async with (
        running(tmp_path, cpus=1) as (coordinator, client),
        client_of(coordinator.port, tmp_path / "drive", "second") as second,
    ):
        job_id = await client.submit(WAITS, resource_config={"cpu_count": 1})
        await client.until_line(job_id, "ready")
        for number in range(3):
            odd = record(f"odd-{number}", max_runtime=INT64)
            coordinator.controller.apply(
                lambda scheduler, odd=odd: (scheduler.submit(odd), None)  # type: ignore[misc]
            )
        second.write("train.py", "pass")
        request = submission()
        request.training_config.framework.custom_script_path = "scaidrive://second/train.py"
        request.resource_config.cpu_count = 1
        answer = await second.call("SubmitJob", request)
        assert 0 < answer.estimated_wait_seconds <= LONGEST
        for method, asked in (
            ("GetQueueStatus", GetQueueStatusRequest()),
            ("ListJobs", ListJobsRequest()),
            ("ListNodes", ListNodesRequest()),
            ("GetClusterStatus", GetClusterStatusRequest()),
        ):
            await second.call(method, asked)
            await client.call(method, asked)


async def test_a_job_that_is_made_is_answered_though_its_wait_cannot_be_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(scheduler: Scheduler) -> Forecast:
        raise OverflowError("wide")

    async with running(tmp_path, cpus=1) as (_, client):
        job_id = await client.submit(WAITS, resource_config={"cpu_count": 1})
        await client.until_line(job_id, "ready")
        monkeypatch.setattr(Scheduler, "forecast", fails)
        waiting = await client.submit("pass", resource_config={"cpu_count": 1})
        assert (await client.job(waiting)).job_id == waiting
