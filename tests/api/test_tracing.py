"""A trace goes through: from the request's `traceparent` to the coordinator's call and the log."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from app.telemetry.trace_context import TraceContext
from generated.mindcoordinator.v1 import jobs_pb2, watch_pb2
from tests.api.conftest import Gateway
from tests.api.endpoints import PREFIX

JOBS = f"{PREFIX}/jobs"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as captured:
        yield captured


def arrived(gateway: Gateway, method: str = "ListJobs") -> TraceContext:
    (request,) = gateway.coordinator.requests(method)
    return TraceContext.parse(str(request.metadata["traceparent"]))


async def test_a_trace_is_continued(gateway: Gateway, events: list[Any]) -> None:
    await gateway.ask("GET", JOBS, headers={"traceparent": PARENT})
    seen = arrived(gateway)
    assert (seen.trace_id, seen.flags) == (TRACE, 1)
    assert seen.span_id != SPAN
    (request,) = [each for each in events if each["event"] == "request"]
    assert request["trace_id"] == TRACE


@pytest.mark.parametrize(
    "given", ["", "no-trace", PARENT.replace("00-", "ff-", 1), f"{PARENT}-x", "x" * 4000]
)
async def test_an_invalid_one_is_replaced(gateway: Gateway, events: list[Any], given: str) -> None:
    await gateway.ask("GET", JOBS, headers={"traceparent": given})
    seen = arrived(gateway)
    assert seen.trace_id != TRACE
    (request,) = [each for each in events if each["event"] == "request"]
    assert request["trace_id"] == seen.trace_id
    assert "no-trace" not in str(events)


async def test_requests_of_one_connection_are_traces_of_their_own(gateway: Gateway) -> None:
    for _ in range(3):
        await gateway.ask("GET", JOBS)
    seen = {
        TraceContext.parse(str(each.metadata["traceparent"])).trace_id
        for each in gateway.coordinator.requests("ListJobs")
    }
    assert len(seen) == 3


async def test_a_failed_request_names_its_trace_and_its_code(
    gateway: Gateway, events: list[Any]
) -> None:
    answer = await gateway.ask("GET", f"{JOBS}?x=1", headers={"traceparent": PARENT})
    assert answer.status == 422
    (request,) = [each for each in events if each["event"] == "request"]
    assert (request["trace_id"], request["code"]) == (TRACE, "VALIDATION_ERROR")


async def test_a_streams_upstream_call_is_part_of_the_trace(gateway: Gateway) -> None:
    job = jobs_pb2.Job(job_id="job-1", tenant_id="acme", status=jobs_pb2.JOB_STATUS_COMPLETED)
    gateway.coordinator.answer("GetJob", job)
    gateway.coordinator.answer(
        "WatchJob",
        [
            watch_pb2.WatchJobResponse(
                start=watch_pb2.WatchStart(epoch="e1", status=jobs_pb2.JOB_STATUS_COMPLETED),
                end=watch_pb2.WatchEnd(status=jobs_pb2.JOB_STATUS_COMPLETED),
            )
        ],
    )
    answer = await gateway.ask("GET", f"{JOBS}/job-1/logs", headers={"traceparent": PARENT})
    assert answer.status == 200
    assert arrived(gateway, "WatchJob").trace_id == TRACE
