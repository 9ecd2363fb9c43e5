"""Two coordinators, each a process of its own, on one database and one data directory."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no stubs

from app.gateway.routes import PREFIX
from generated.mindcoordinator.v1.jobs_pb2 import ListJobsRequest
from tests.coordinator.harness import (
    PATIENCE,
    SECRET,
    Client,
    Killable,
    client_of,
    coordinator_process,
    status_of,
)
from tests.hub.sse import Event, Parser
from tests.replicas import new_key, replica, settings_for

#: Says numbers until it is told to go.
COUNTS = """
    import os, time
    go = os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/go"
    number = 0
    while not os.path.exists(go):
        number += 1
        print("number", number, flush=True)
        time.sleep(0.02)
    print("last", number, flush=True)
"""


class Member(Client):
    """A coordinator of several, and a client of it."""

    process: Killable


@asynccontextmanager
async def member(path: Path, dsn: str, *, lease: float = 3.0) -> AsyncIterator[Member]:
    async with (
        coordinator_process(
            path, settings={"DATABASE_DSN": dsn, "LEASE_SECONDS": str(lease)}
        ) as process,
        client_of(process.port, path / "drive") as client,
    ):
        found = Member(client.stub, client.drive)
        found.process = process
        yield found


async def until_leading(client: Client) -> float:
    """Wait until a coordinator leads; returns the seconds that it took."""
    began = time.monotonic()
    deadline = began + PATIENCE
    while True:
        try:
            await client.call("ListJobs", ListJobsRequest())
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            return time.monotonic() - began


async def until_it_names(standby: Client, port: int) -> None:
    """Wait until a standby has seen who leads."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with pytest.raises(grpc.aio.AioRpcError, match="stands by") as refused:
            await standby.call("ListJobs", ListJobsRequest())
        if f"the one at 127.0.0.1:{port} leads" in (refused.value.details() or ""):
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def health_of(port: int) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        status: int = (await stub.Check(health_pb2.HealthCheckRequest())).status
        return status


async def check_lines(client: Client, job_id: str) -> None:
    """Each line is there once, in its order, with dense offsets."""
    entries = await client.log(job_id)
    assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
    said = [entry.message for entry in entries if entry.source == "stdout"]
    numbers = [int(text.split()[1]) for text in said if text.startswith("number")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert said[-1] == f"last {len(numbers)}"
    assert len([entry for entry in entries if entry.message.startswith("Run 1 begins")]) == 1


def go(client: Client, job_id: str) -> None:
    (client.drive / "local" / "jobs" / job_id / "checkpoints" / "go").touch()


async def test_another_one_takes_over_without_losing_or_repeating_anything(
    tmp_path: Path, postgres_dsn: str
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(member(tmp_path, postgres_dsn))
        await until_leading(first)
        second = await stack.enter_async_context(member(tmp_path, postgres_dsn))
        await until_it_names(second, first.process.port)
        assert await health_of(second.process.port) == health_pb2.HealthCheckResponse.NOT_SERVING
        job_id = await first.submit(COUNTS)
        await first.until_line(job_id, "number 20")
        await first.process.stop(signal.SIGKILL)
        await until_leading(second)
        assert await health_of(second.process.port) == health_pb2.HealthCheckResponse.SERVING
        assert status_of(await second.job(job_id)) == "TRAINING"
        await asyncio.to_thread(go, second, job_id)
        job = await second.end(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        await check_lines(second, job_id)
        # What it stops, it hands over at once.
        third = await stack.enter_async_context(member(tmp_path, postgres_dsn, lease=60.0))
        await second.process.stop(signal.SIGTERM)
        assert second.process.process.returncode == 0
        await until_leading(third)
        assert status_of(await third.job(job_id)) == "COMPLETED"


async def test_a_stream_through_a_gateway_goes_on_at_the_next_leader(
    tmp_path: Path, postgres_dsn: str, migrated_dsn: str
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(member(tmp_path, postgres_dsn))
        await until_leading(first)
        second = await stack.enter_async_context(member(tmp_path, postgres_dsn))
        key = await new_key(migrated_dsn, tenant="local")
        addresses = ",".join(f"127.0.0.1:{each.process.port}" for each in (second, first))
        gateway = await stack.enter_async_context(
            replica(settings_for(migrated_dsn, addresses, api_secret=SECRET))
        )
        job_id = await first.submit(COUNTS)
        path = f"{PREFIX}/jobs/{job_id}/logs?tail=1000"
        watching = await stack.enter_async_context(
            gateway.http.get(
                gateway.server.make_url(path), headers={"Authorization": f"Bearer {key.secret}"}
            )
        )
        assert watching.status == 200
        events: list[Event] = []
        parser = Parser()
        killed = False
        async with asyncio.timeout(2 * PATIENCE):
            async for data in watching.content.iter_any():
                events += parser.feed(data)
                logs = [event for event in events if event.name == "log"]
                if not killed and len(logs) > 20:
                    killed = True
                    await first.process.stop(signal.SIGKILL)
                    await until_leading(second)
                    await asyncio.to_thread(go, second, job_id)
        assert not [event for event in events if event.name in ("gap", "error")]
        said = [event.data["message"] for event in logs]
        numbers = [int(text.split()[1]) for text in said if text.startswith("number")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert f"last {len(numbers)}" in said
        answer = await gateway.ask("GET", f"/jobs/{job_id}", token=key.secret)
        assert answer.data["status"] == "COMPLETED"
