"""The coordinator's own log: its decisions, and by which request a line came about."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from generated.mindcoordinator.v1.cluster_pb2 import DrainNodeRequest, EnableNodeRequest
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, GetJobRequest
from tests.coordinator.harness import Client, client_of, coordinator_process, running
from tests.coordinator.scripts import WAITS

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as captured:
        yield captured


def audited(events: list[Any]) -> list[tuple[str, str]]:
    return [(each["action"], each["target_id"]) for each in events if each["event"] == "audit"]


async def ask(client: Client, method: str, request: Any, **metadata: str) -> Any:
    sent = (*client.metadata, *((name.replace("_", "-"), each) for name, each in metadata.items()))
    return await getattr(client.stub, method)(request, metadata=sent)


async def test_a_failed_job_is_one_decision(tmp_path: Path, events: list[Any]) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit("import sys; sys.exit('token=hunter22')")
        await client.end(job_id)
    assert audited(events) == [("job.fail", job_id)]
    assert "hunter22" not in str([each for each in events if each["event"] == "audit"])


async def test_a_call_is_found_by_its_request_and_its_trace(
    tmp_path: Path, events: list[Any]
) -> None:
    async with running(tmp_path) as (_, client):
        await ask(
            client,
            "DrainNode",
            DrainNodeRequest(node_id="local", reason="a fan"),
            x_request_id="id-1",
            traceparent=f"00-{TRACE}-{SPAN}-01",
        )
        await ask(client, "EnableNode", EnableNodeRequest(node_id="local"), traceparent="none")
    drained, enabled = (each for each in events if each["event"] == "audit")
    assert (drained["action"], drained["target_id"]) == ("node.drain", "local")
    assert (drained["tenant_id"], drained["user_id"]) == ("local", "someone")
    assert (drained["request_id"], drained["trace_id"]) == ("id-1", TRACE)
    assert "a fan" not in str(drained)
    assert len(enabled["trace_id"]) == 32
    assert enabled["trace_id"] != TRACE
    assert "request_id" not in enabled


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b"])
async def test_a_request_id_is_bounded(tmp_path: Path, events: list[Any], request_id: str) -> None:
    async with running(tmp_path) as (_, client):
        await ask(client, "EnableNode", EnableNodeRequest(node_id="local"), x_request_id=request_id)
    (event,) = (each for each in events if each["event"] == "audit")
    assert "request_id" not in event


async def test_what_a_request_sets_going_is_not_said_to_be_the_request(
    tmp_path: Path, events: list[Any]
) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        await ask(
            client,
            "CancelJob",
            CancelJobRequest(job_id=job_id),
            traceparent=f"00-{TRACE}-{SPAN}-01",
        )
        await client.end(job_id)
    changes = [each for each in events if each["event"] == "job_changed"]
    traces = {each["status"]: each.get("trace_id") for each in changes}
    assert traces["QUEUED"] is not None
    # By the call itself: the job's line that it is being cancelled.
    assert TRACE in [each.get("trace_id") for each in changes]
    # By the tasks that calls set going.
    assert (traces["PREPARING"], traces["CANCELLED"]) == (None, None)


async def test_a_job_that_outlived_a_crash_is_recovered(tmp_path: Path, events: list[Any]) -> None:
    async with (
        coordinator_process(tmp_path) as process,
        client_of(process.port, tmp_path / "drive") as client,
    ):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        await process.stop(signal.SIGKILL)
    async with running(tmp_path) as (_, client):
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await client.end(job_id)
    assert audited(events) == [("job.recover", job_id)]


async def test_a_call_that_is_refused_ends_as_before(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(client, "GetJob", GetJobRequest(job_id="none"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
