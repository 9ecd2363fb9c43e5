"""Search a log of a gigabyte through the coordinator, and with grep, in one run.

    .venv/bin/python -m scripts.bench.log_search [--lines 10500000] [--seconds 10]

The log is written by the coordinator's own writer, into the directory of a job
that has ended. SearchJobLogs looks for a text that is not there, and so does
`grep -ci` in the journal itself, from the page cache. So do filtered pages,
each from where the one before ended. Beside each search, again and again for
some seconds, other calls are made one after the other: GetJob, and ListJobLogs
for a page from the middle. Without a filter, pages are read at ten places.
"""

import argparse
import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final

import grpc.aio

from app.coordinator.storage.job_directory import JobDir
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.jobs_pb2 import (
    FrameworkType,
    GetJobRequest,
    Job,
    SubmitJobRequest,
)
from generated.mindcoordinator.v1.logs_pb2 import SearchEnd, SearchJobLogsRequest
from generated.mindcoordinator.v1.watch_pb2 import ListJobLogsRequest, LogFilter, WatchJobRequest
from scripts.bench.logs import write

if TYPE_CHECKING:
    from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorAsyncStub

#: What a search may take of grep's time, and other calls beside it of theirs beside grep.
SEARCH_LIMIT: Final = 3.0
BESIDE_LIMIT: Final = 1.5
ROUNDS: Final = 5
NEEDLE: Final = "Out of Memory"

_PROGRAM: Final = """
import asyncio, os
from app.coordinator import CoordinatorConfig, serve
config = CoordinatorConfig.from_env(os.environ)
asyncio.run(serve(config, ready=lambda port: print("port", port, flush=True)))
"""


class Rig:
    """Calls of one tenant, and the log that they are about."""

    def __init__(
        self, stub: "MindCoordinatorAsyncStub", metadata: tuple[tuple[str, str], ...]
    ) -> None:
        self.stub = stub
        self.metadata = metadata
        self.job_id = ""
        self.lines = 0

    async def submit(self) -> None:
        """Run a job that does nothing, to its end."""
        request = SubmitJobRequest(name="log search")
        framework = request.training_config.framework
        framework.type = FrameworkType.FRAMEWORK_TYPE_CUSTOM
        framework.custom_script_path = "scaidrive://bench/train.py"
        answer = await self.stub.SubmitJob(request, metadata=self.metadata)
        self.job_id = answer.job_id
        watch = self.stub.WatchJob(WatchJobRequest(job_id=self.job_id), metadata=self.metadata)
        async for _ in watch:
            pass

    async def _job(self) -> Job:
        return await self.stub.GetJob(GetJobRequest(job_id=self.job_id), metadata=self.metadata)

    async def search(self) -> None:
        """Search the whole log for what is not there."""
        before = 0
        while True:
            request = SearchJobLogsRequest(
                job_id=self.job_id, filter=LogFilter(contains=NEEDLE), before_offset=before
            )
            async for message in self.stub.SearchJobLogs(request, metadata=self.metadata):
                last = message
            if last.end == SearchEnd.SEARCH_END_EXHAUSTED:
                return
            before = last.scanned_to

    async def pages(self) -> list[float]:
        """Page through the whole log for what is not there; returns the seconds of each page."""
        spent, before = [], self.lines + 1
        while before > 1:
            began = time.perf_counter()
            request = ListJobLogsRequest(
                job_id=self.job_id, before_offset=before, filter=LogFilter(contains=NEEDLE)
            )
            page = await self.stub.ListJobLogs(request, metadata=self.metadata)
            spent.append(time.perf_counter() - began)
            before = page.next_before_offset
        return spent

    async def page_at(self, place: int) -> None:
        """Read a page without a filter."""
        request = ListJobLogsRequest(job_id=self.job_id, before_offset=place, page_size=100)
        await self.stub.ListJobLogs(request, metadata=self.metadata)

    async def ask(self) -> float:
        """Make two other calls; returns the seconds of the slower."""
        began = time.perf_counter()
        await self._job()
        between = time.perf_counter()
        request = ListJobLogsRequest(
            job_id=self.job_id, before_offset=self.lines // 2, page_size=100
        )
        await self.stub.ListJobLogs(request, metadata=self.metadata)
        return max(between - began, time.perf_counter() - between)


def put_script(drive: Path) -> None:
    """Put the script of the job into its tenant's folder."""
    drive.mkdir(parents=True)
    (drive / "train.py").write_text("print('done')\n", encoding="utf-8")


async def grep(path: Path) -> None:
    """Search the journal with grep; it exits with 1 if it finds nothing."""
    process = await asyncio.create_subprocess_exec(
        "grep", "-aci", NEEDLE, str(path), stdout=subprocess.DEVNULL
    )
    if await process.wait() > 1:
        raise SystemExit("grep failed")


async def timed(call: Callable[[], Awaitable[None]]) -> float:
    """Seconds that a call takes, the middle of some."""
    spent = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await call()
        spent.append(time.perf_counter() - began)
    return median(spent)


async def beside(rig: Rig, call: Callable[[], Awaitable[None]] | None, seconds: float) -> float:
    """The 99th percentile of other calls' seconds while `call` is made again and again."""

    async def again() -> None:
        while call is not None:
            await call()

    load = asyncio.create_task(again(), name="load")
    try:
        spent = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            spent.append(await rig.ask())
    finally:
        load.cancel()
        with suppress(asyncio.CancelledError):
            await load
    return quantiles(spent, n=100)[98]


@asynccontextmanager
async def coordinator(folder: Path) -> AsyncIterator[Rig]:
    """A coordinator in a process of its own, and a client."""
    secret = secrets.token_hex(16)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "SCAIMIND_COORDINATOR_DATA_DIR": str(folder),
            "SCAIMIND_COORDINATOR_API_SECRET": secret,
            "SCAIMIND_COORDINATOR_ADDRESS": "127.0.0.1:0",
        },
    )
    assert process.stdout is not None
    try:
        while not (line := await process.stdout.readline()).startswith(b"port "):
            if not line:
                raise SystemExit("the coordinator did not start")
        drained = asyncio.create_task(process.stdout.read(), name="coordinator's log")
        target = f"127.0.0.1:{int(line.split()[1])}"
        async with grpc.aio.insecure_channel(
            target, options=[("grpc.enable_http_proxy", 0)]
        ) as channel:
            metadata = (("x-api-secret", secret), ("x-tenant-id", "bench"), ("x-user-id", "me"))
            yield Rig(MindCoordinatorStub(channel), metadata)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    await drained


async def measure(lines: int, seconds: float) -> int:
    """Print seconds and ratios; 1 if a target is missed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await asyncio.to_thread(put_script, folder / "drive" / "bench")
        async with coordinator(folder) as rig:
            await rig.submit()
            rig.lines = lines
            directory = JobDir(folder / "jobs" / rig.job_id)
            await asyncio.to_thread(write, directory.log, lines)
            path = directory.log / "entries"
            print(f"{lines:,} lines, {path.stat().st_size / 1e9:.2f} GB")
            # Once, so that all of it is in the page cache.
            await grep(path)
            theirs = await timed(lambda: grep(path))
            ours = await timed(rig.search)
            print(f"grep -ci   {theirs:7.2f} s")
            print(f"search     {ours:7.2f} s   {ours / theirs:5.2f}x")
            filtered = await rig.pages()
            print(
                f"filtered pages {sum(filtered):6.2f} s   {sum(filtered) / theirs:5.2f}x, "
                f"{len(filtered)} of them, the slowest {max(filtered):.2f} s"
            )
            places = [
                await timed(partial(rig.page_at, max(lines * tenth // 10, 101)))
                for tenth in range(11)
            ]
            print(
                f"a page of 100 lines   {min(places) * 1e3:.2f} to {max(places) * 1e3:.2f} ms   "
                f"{max(places) / min(places):5.2f}x"
            )
            alone = await beside(rig, None, seconds)
            with_grep = await beside(rig, lambda: grep(path), seconds)
            with_search = await beside(rig, rig.search, seconds)
            print(f"\nother calls' 99th percentile\nalone         {alone * 1e3:7.2f} ms")
            print(f"beside grep   {with_grep * 1e3:7.2f} ms")
            ratio = with_search / with_grep
            print(f"beside search {with_search * 1e3:7.2f} ms   {ratio:5.2f}x of that beside grep")
    return int(ours / theirs > SEARCH_LIMIT or ratio > BESIDE_LIMIT)


def main() -> int:
    """Measure, with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=10_500_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    return asyncio.run(measure(options.lines, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
