"""A coordinator over a real socket, and the calls that tests make."""

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc.aio

from app.coordinator.isolation.levels import UidRange
from app.coordinator.server import Coordinator
from app.coordinator.settings.coordinator import CoordinatorConfig
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.jobs_pb2 import (
    FrameworkType,
    GetJobRequest,
    Job,
    JobStatus,
    SubmitJobRequest,
)
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, WatchJobRequest, WatchJobResponse
from tests.secrecy import secret, written

if TYPE_CHECKING:
    from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorAsyncStub

SECRET = secret("the-secret-of-the-tests")
#: Seconds after which a test that waits for something gives up.
PATIENCE = 120.0

TERMINAL = {"COMPLETED", "FAILED", "CANCELLED", "PREEMPTED"}


def status_of(job: Job) -> str:
    return JobStatus.Name(job.status).removeprefix("JOB_STATUS_")


def process_number() -> int:
    """The number of this test process among those that run tests side by side."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def own_uids() -> UidRange:
    """The user ids for jobs of this test process: no two coordinators may share theirs."""
    share = 478 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = 60706 + process_number() * share
    return UidRange(first, first + share - 1)


def config_for(path: Path, **settings: Any) -> CoordinatorConfig:
    return CoordinatorConfig(
        data_dir=path,
        api_secret=SECRET,
        **{
            "address": "127.0.0.1:0",
            "stop_grace": 5.0,
            "cpus": 4,
            "job_uids": own_uids(),
            **settings,
        },
    )


def submission(**changes: Any) -> SubmitJobRequest:
    """A request that is accepted, if `train.py` is there."""
    request = SubmitJobRequest(name="test")
    request.training_config.framework.type = FrameworkType.FRAMEWORK_TYPE_CUSTOM
    request.training_config.framework.custom_script_path = "scaidrive://local/train.py"
    request.training_config.priority = 5
    for name, value in changes.items():
        request.MergeFrom(SubmitJobRequest(**{name: value}))
    return request


@dataclass
class Client:
    """Calls as one tenant."""

    stub: "MindCoordinatorAsyncStub"
    drive: Path
    tenant: str = "local"
    secret: str = SECRET

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (
            ("x-api-secret", self.secret),
            ("x-tenant-id", self.tenant),
            ("x-user-id", "someone"),
        )

    async def call(self, method: str, request: Any) -> Any:
        async with asyncio.timeout(PATIENCE):
            return await getattr(self.stub, method)(request, metadata=self.metadata)

    def write(self, path: str, text: str) -> str:
        """Put a file into the tenant's folder; returns its URL."""
        target = self.drive / self.tenant / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))
        return f"scaidrive://{self.tenant}/{path}"

    async def submit(self, script: str, **changes: Any) -> str:
        """Submit a job that runs this script; returns its id."""
        request = submission(**changes)
        count = sum(1 for _ in (self.drive / self.tenant).glob("script-*.py"))
        request.training_config.framework.custom_script_path = self.write(
            f"script-{count}.py", script
        )
        job_id: str = (await self.call("SubmitJob", request)).job_id
        return job_id

    async def job(self, job_id: str) -> Job:
        answer: Job = await self.call("GetJob", GetJobRequest(job_id=job_id))
        return answer

    async def watch(
        self, job_id: str, *, tail: int = 1_000_000, **request: Any
    ) -> AsyncIterator[WatchJobResponse]:
        call = self.stub.WatchJob(
            WatchJobRequest(job_id=job_id, tail=tail, **request), metadata=self.metadata
        )
        try:
            async for message in call:
                yield message
        finally:
            call.cancel()

    async def until(self, job_id: str, done: Callable[[Job], bool]) -> Job:
        """The job as soon as `done` holds: looked at again whenever the job tells something."""
        async with asyncio.timeout(PATIENCE):
            async for _ in self.watch(job_id, tail=0):
                job = await self.job(job_id)
                if done(job):
                    return job
        job = await self.job(job_id)
        assert done(job), job
        return job

    async def until_status(self, job_id: str, *names: str) -> Job:
        return await self.until(job_id, lambda job: status_of(job) in names)

    async def end(self, job_id: str) -> Job:
        return await self.until_status(job_id, *TERMINAL)

    async def log(self, job_id: str) -> list[LogEntry]:
        """The whole log of a job, up to its end."""
        entries: list[LogEntry] = []
        async with asyncio.timeout(PATIENCE):
            async for message in self.watch(job_id):
                entries += message.logs
        return entries

    async def until_line(self, job_id: str, text: str) -> LogEntry:
        """Wait for a line that has `text`."""
        async with asyncio.timeout(PATIENCE):
            async for message in self.watch(job_id):
                for entry in message.logs:
                    if text in entry.message:
                        return entry
        raise AssertionError(f"the log ended without {text!r}")


@asynccontextmanager
async def client_of(port: int, drive: Path, tenant: str = "local") -> AsyncIterator[Client]:
    (drive / tenant).mkdir(parents=True, exist_ok=True)
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    # As a gateway does: gRPC's own limit is a fourth of it.
    options.append(("grpc.max_receive_message_length", 16 * 1024 * 1024))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield Client(MindCoordinatorStub(channel), drive, tenant)


@asynccontextmanager
async def running(
    path: Path, *, clock: Callable[[], int] | None = None, **settings: Any
) -> AsyncIterator[tuple[Coordinator, Client]]:
    """A coordinator in this process, and a client of it."""
    config = config_for(path, **settings)
    async with (
        Coordinator(config, clock=clock) as coordinator,
        client_of(coordinator.port, config.drive_root) as client,
    ):
        yield coordinator, client
        coordinator.controller.scheduler.validate()


#: Starts a coordinator and prints its port.
_PROGRAM = """
import asyncio, os
from app.coordinator import CoordinatorConfig, serve
config = CoordinatorConfig.from_env(os.environ)
asyncio.run(serve(config, ready=lambda port: print(port, flush=True)))
"""


class Killable:
    """A coordinator in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def stop(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        async with asyncio.timeout(60):
            await self.process.wait()


@asynccontextmanager
async def coordinator_process(
    path: Path,
    *,
    port: int = 0,
    within: Sequence[str] = (),
    uids: UidRange | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
    program: str = _PROGRAM,
) -> AsyncIterator[Killable]:
    """Run a coordinator in a process of its own; at the end it is stopped, and its jobs with it.

    `within` is a command that becomes the one behind it; `settings` are variables without their
    prefix; `program` is what runs it, and prints its port.
    """
    process = await asyncio.create_subprocess_exec(
        *within,
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": os.getcwd(),
            "SCAIMIND_COORDINATOR_DATA_DIR": str(path),
            "SCAIMIND_COORDINATOR_API_SECRET": SECRET,
            "SCAIMIND_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "SCAIMIND_COORDINATOR_STOP_GRACE": "5",
            "SCAIMIND_COORDINATOR_JOB_UIDS": str(uids or own_uids()),
            "SCAIMIND_COORDINATOR_CPUS": "4",
            **{f"SCAIMIND_COORDINATOR_{name}": value for name, value in settings.items()},
        },
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (line := await process.stdout.readline()).strip().isdigit():
                assert line, "the coordinator did not start"
        # What it logs from here on must not fill the pipe.
        drained = asyncio.create_task(process.stdout.read())
        try:
            yield Killable(process, int(line))
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                async with asyncio.timeout(60):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
                raise
            written("coordinator", await drained)
    finally:
        # Closed here and now: a warning at collection time would come too late.
        process._transport.close()  # type: ignore[attr-defined]  # no public way
