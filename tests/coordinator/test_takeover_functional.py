"""Two coordinators, each a process of its own, on one database and one data directory."""

import asyncio
import hashlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import grpc.aio
import psycopg2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no stubs

from app.coordinator.program import STEPPED_DOWN
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
from tests.coordinator.test_lease import expire
from tests.hub.sse import Event, Parser
from tests.replicas import new_key, replica, settings_for

#: Says numbers until it is told to go.
COUNTS = """
    import os, time
    go = os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/go"
    number = 0
    while not os.path.exists(go):
        number += 1
        print(f"number {number}", flush=True)
        time.sleep(0.02)
    print(f"last {number}", flush=True)
"""


class Member(Client):
    """A coordinator of several, and a client of it."""

    process: Killable


@asynccontextmanager
async def member(path: Path, dsn: str, *, lease: float = 600.0) -> AsyncIterator[Member]:
    """A lease does not run out by itself unless it is under test: machines of tests stand still."""
    async with (
        coordinator_process(
            path, settings={"DATABASE_DSN": dsn, "LEASE_SECONDS": str(lease)}
        ) as process,
        client_of(process.port, path / "drive") as client,
    ):
        found = Member(client.stub, client.drive)
        found.process = process
        yield found


async def expire_of(former: Member, dsn: str) -> None:
    """Have the lease of a leader run out, unless another one leads already."""
    address = f"127.0.0.1:{former.process.port}"
    await asyncio.to_thread(expire, dsn, "scaimind_coordinator", of=address)


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


async def health_of(port: int, service: str = "") -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = (await stub.Check(request)).status
        return status


async def check_lines(client: Client, job_id: str) -> None:
    """Each line is there once, in its order, with dense offsets."""
    entries = await client.log(job_id)
    assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
    said = [entry.message for entry in entries if entry.source == "stdout"]
    numbers = [int(text.split()[1]) for text in said if text.startswith("number")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert said[-1] == f"last {len(numbers)}"
    assert len([entry for entry in entries if " begins on " in entry.message]) == 1


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
        serving = health_pb2.HealthCheckResponse.SERVING
        assert await health_of(second.process.port) == health_pb2.HealthCheckResponse.NOT_SERVING
        # Or a supervisor would start it again and again.
        assert await health_of(second.process.port, "liveness") == serving
        job_id = await first.submit(COUNTS)
        await first.until_line(job_id, "number 20")
        await first.process.stop(signal.SIGKILL)
        await expire_of(first, postgres_dsn)
        await until_leading(second)
        assert await health_of(second.process.port) == serving
        assert status_of(await second.job(job_id)) == "TRAINING"
        await asyncio.to_thread(go, second, job_id)
        job = await second.end(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        await check_lines(second, job_id)
        # What it stops, it hands over at once.
        third = await stack.enter_async_context(member(tmp_path, postgres_dsn))
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
                    await expire_of(first, postgres_dsn)
                    await until_leading(second)
                    await asyncio.to_thread(go, second, job_id)
        assert not [event for event in events if event.name in ("gap", "error")]
        said = [event.data["message"] for event in logs]
        numbers = [int(text.split()[1]) for text in said if text.startswith("number")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert f"last {len(numbers)}" in said
        answer = await gateway.ask("GET", f"/jobs/{job_id}", token=key.secret)
        assert answer.data["status"] == "COMPLETED"


def traces(path: Path, dsn: str) -> dict[str, str]:
    """What a former leader must not change: jobs in the database, and their files."""
    found: dict[str, str] = {}
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        for table in ("jobs", "checkpoints", "job_changes", "change_versions"):
            cursor.execute(f"SELECT * FROM scaimind_coordinator.{table} ORDER BY 1, 2")
            rows = [[bytes(v) if isinstance(v, memoryview) else v for v in row] for row in cursor]
            found[table] = repr(rows)
    for file in sorted([*(path / "jobs").rglob("*"), *(path / "drive").rglob("*")]):
        content = file.read_bytes() if file.is_file() and not file.is_symlink() else b""
        found[str(file.relative_to(path))] = hashlib.sha256(content).hexdigest()
    return found


@pytest.mark.slow
async def test_a_leader_that_was_stopped_for_15_seconds_changes_nothing(
    tmp_path: Path, postgres_dsn: str
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(member(tmp_path, postgres_dsn, lease=3.0))
        await until_leading(first)
        second = await stack.enter_async_context(member(tmp_path, postgres_dsn, lease=3.0))
        process = first.process.process
        # It is in the middle of as much as can be: submissions, preparations, runs, exports.
        tasks = [asyncio.create_task(first.submit("print('done')")) for _ in range(12)]
        job_ids = [await task for task in tasks[:6]]
        process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            await until_leading(second)
            for job_id in job_ids:
                job = await second.end(job_id)
                assert status_of(job) == "COMPLETED", job.error_message
            listed = await second.call("ListJobs", ListJobsRequest(page_size=100))
            for each in listed.jobs:
                await second.end(each.job_id)
            await asyncio.sleep(max(stopped + 15 - time.monotonic(), 0))
            before = await asyncio.to_thread(traces, tmp_path, postgres_dsn)
        finally:
            process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == STEPPED_DOWN
        answered = await asyncio.gather(*tasks, return_exceptions=True)
        assert await asyncio.to_thread(traces, tmp_path, postgres_dsn) == before
        # What it had answered was there, and stays.
        kept = {each.job_id for each in listed.jobs}
        assert kept >= {each for each in answered if isinstance(each, str)}


@pytest.mark.slow
async def test_ten_take_overs_lose_and_repeat_nothing(
    tmp_path: Path, postgres_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    times: list[float] = []
    async with AsyncExitStack() as stack:
        leader = await stack.enter_async_context(member(tmp_path, postgres_dsn, lease=5.0))
        await until_leading(leader)
        job_id = await leader.submit(COUNTS)
        await leader.until_line(job_id, "number 5")
        for _ in range(10):
            standby = await stack.enter_async_context(member(tmp_path, postgres_dsn, lease=5.0))
            await until_it_names(standby, leader.process.port)
            killed = time.monotonic()
            await leader.process.stop(signal.SIGKILL)
            await until_leading(standby)
            times.append(time.monotonic() - killed)
            leader = standby
        await asyncio.to_thread(go, leader, job_id)
        job = await leader.end(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        await check_lines(leader, job_id)
    with capsys.disabled():
        sys.stderr.write(f"\ntake-overs: {sorted(round(each, 1) for each in times)} s\n")
