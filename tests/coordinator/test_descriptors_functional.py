"""Open files: watching takes none, and a coordinator that has none left fails no job."""

import asyncio
import os
import resource
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs

from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.logs import log as logs
from app.coordinator.metrics.snapshots import MetricsWriter
from app.coordinator.server import now_micros
from app.coordinator.storage.job_directory import JobDir
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, SubmitJobRequest
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, WatchJobRequest, WatchJobResponse
from tests.coordinator.harness import (
    PATIENCE,
    Client,
    coordinator_process,
    running,
    status_of,
)
from tests.coordinator.scripts import WAITS

if TYPE_CHECKING:
    # Generic in the stubs, not at run time.
    Stream = grpc.aio.UnaryStreamCall[WatchJobRequest, WatchJobResponse]

WATCHED = 2_000
LIMIT = 1_024
#: One in so many stored jobs has a log of its own.
OWN_FILES = 100


@pytest.fixture(autouse=True)
def logged() -> Iterator[Sequence[Mapping[str, Any]]]:
    """What the operators are told; the tests' own way of printing tracebacks opens files."""
    with capture_logs() as lines:
        yield lines


@contextmanager
def descriptor_limit(limit: int) -> Iterator[None]:
    """A lower limit for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def stored_jobs(path: Path, count: int) -> list[str]:
    """Paused jobs in a data directory that no coordinator has yet."""
    jobs = [
        JobRecord(
            job_id=f"job-{number}",
            tenant_id="local",
            user_id="u",
            name="n",
            submission=SubmitJobRequest(name="n"),
            resource_request=ResourceRequest(),
            created_at=1,
            updated_at=1,
        )
        for number in range(count)
    ]
    path.mkdir(parents=True, exist_ok=True)
    store = SqliteStore(path / "coordinator.db")
    with store.transaction():
        store.save_jobs(replace(job, status=Status.PAUSED) for job in jobs)
    store.close()
    first = JobDir(path / "jobs" / "job-0")
    logs.create(first.log)
    MetricsWriter(first.metrics).close()
    first.lock.touch()
    for number, job in enumerate(jobs[1:], 1):
        if number % OWN_FILES:
            # Each watcher opens files of its own; to make them all would take most of the time.
            (path / "jobs" / job.job_id).symlink_to(first.path)
        else:
            shutil.copytree(first.path, path / "jobs" / job.job_id)
    return [job.job_id for job in jobs]


async def begin(client: Client, job_id: str) -> "Stream":
    """A stream that has begun."""
    call = client.stub.WatchJob(WatchJobRequest(job_id=job_id), metadata=client.metadata)
    first = await call.read()
    assert isinstance(first, WatchJobResponse)
    assert first.HasField("start")
    return call


async def until_end(stream: "Stream") -> None:
    """Read a stream to its `end`."""
    async with asyncio.timeout(PATIENCE):
        while isinstance(message := await stream.read(), WatchJobResponse):
            if message.HasField("end"):
                return
    raise AssertionError("it ended without an end")


async def test_two_thousand_jobs_are_watched_under_a_limit_of_1024_descriptors(
    tmp_path: Path,
) -> None:
    job_ids = stored_jobs(tmp_path, WATCHED)
    with descriptor_limit(LIMIT):
        async with running(tmp_path) as (_, client):
            before = open_files()
            streams = await asyncio.gather(*(begin(client, job_id) for job_id in job_ids))
            assert open_files() - before < 20
            # A job runs meanwhile, and what is watched is told.
            assert status_of(await client.end(await client.submit("print('here')"))) == "COMPLETED"
            for job_id in job_ids[OWN_FILES::OWN_FILES]:
                with closing(logs.LogWriter(JobDir(tmp_path / "jobs" / job_id).log)) as writer:
                    writer.append([LogEntry(message=f"line of {job_id}")])
            for job_id, stream in list(zip(job_ids, streams, strict=True))[OWN_FILES::OWN_FILES]:
                async with asyncio.timeout(PATIENCE):
                    message = await stream.read()
                assert isinstance(message, WatchJobResponse)
                assert [entry.message for entry in message.logs] == [f"line of {job_id}"]
                await client.call("CancelJob", CancelJobRequest(job_id=job_id))
                await until_end(stream)
            for stream in streams:
                stream.cancel()


async def test_more_watchers_than_the_limit_are_refused_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, max_watches=2) as (_, client):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        first, second = await begin(client, job_id), await begin(client, job_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await begin(client, job_id)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "max_watches" in str(caught.value.details())
        second.cancel()
        async with asyncio.timeout(PATIENCE):
            while True:
                # Its place is free once the coordinator has seen that it is gone.
                with suppress(grpc.aio.AioRpcError):
                    third = await begin(client, job_id)
                    break
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        for stream in (first, third):
            await until_end(stream)


@contextmanager
def none_left() -> Iterator[None]:
    """Take every descriptor that this process may still have."""
    with descriptor_limit(open_files() + 100), ExitStack() as taken:
        while True:
            try:
                taken.callback(os.close, os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        yield


async def test_without_descriptors_jobs_wait_and_none_fails(tmp_path: Path) -> None:
    async with running(tmp_path, cpus=4) as (coordinator, client):
        long = await client.submit(
            """
            import os, time
            print("ready")
            while not os.path.exists("go"):
                time.sleep(0.01)
            print("gone on")
            """,
            resource_config={"cpu_count": 1},
        )
        await client.until_line(long, "ready")
        first = await client.submit(WAITS, resource_config={"cpu_count": 1})
        await client.until_line(first, "ready")
        begins = Timestamp()
        # When no descriptor is left.
        begins.FromMicroseconds(now_micros() + 5_000_000)
        due = await client.submit("print('here')", scheduling_config={"not_before": begins})
        with none_left():
            await client.call("CancelJob", CancelJobRequest(job_id=first))
            with coordinator.job_events.subscribe(due) as told:
                async with asyncio.timeout(PATIENCE):
                    while status_of(await client.job(due)) != "PREPARING":
                        told.news.clear()
                        await told.news.wait()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await begin(client, long)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert status_of(await client.job(long)) == "TRAINING"
            assert status_of(await client.job(due)) == "PREPARING"
        (JobDir(tmp_path / "jobs" / long).work / "go").touch()
        for job_id, status in ((first, "CANCELLED"), (due, "COMPLETED"), (long, "COMPLETED")):
            assert status_of(await client.end(job_id)) == status
        lines = [entry.message for entry in await client.log(due)]
        assert lines.count("here") == 1


async def test_the_coordinator_raises_its_limit(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with descriptor_limit(256):
        async with coordinator_process(tmp_path) as process:
            soft, _ = psutil.Process(process.process.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == (16_384 if hard == resource.RLIM_INFINITY else min(hard, 16_384))
