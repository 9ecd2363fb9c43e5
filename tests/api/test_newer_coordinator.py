"""A coordinator that is newer than the gateway: operators see it, callers do not."""

from generated.mindcoordinator.v1.jobs_pb2 import Job
from tests.api.conftest import Gateway
from tests.api.endpoints import PREFIX


async def test_fields_that_the_gateway_does_not_know_are_counted(gateway: Gateway) -> None:
    job = Job(job_id="j")
    job.MergeFromString(b"\xfa\x3e\x03new")
    gateway.coordinator.answer("GetJob", job)
    answer = await gateway.ask("GET", f"{PREFIX}/jobs/j")
    assert answer.status == 200
    assert b"new" not in answer.body
    metrics = (await gateway.ask("GET", "/metrics")).body.decode()
    line = 'scaimind_coordinator_unknown_fields_total{message="Job",number="1007"} 1.0'
    assert line in metrics.splitlines()
