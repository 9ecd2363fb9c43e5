"""A coordinator whose machine's clock is set while it runs, as libfaketime does it."""

import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from generated.mindcoordinator.v1.jobs_pb2 import ListJobsRequest
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusRequest
from tests.coordinator.harness import Client, client_of, coordinator_process, status_of
from tests.coordinator.scripts import WAITS

pytestmark = pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")

HOUR = 3600


class Clock:
    """The clock of one process."""

    def __init__(self, path: Path) -> None:
        self._file = path / "clock"
        self.set(0)

    @property
    def within(self) -> list[str]:
        """The command within which the process is run."""
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        return [
            "env",
            f"LD_PRELOAD={library}",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]

    def set(self, seconds: int) -> None:
        """Set it so far forward, or back."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}")
        fresh.replace(self._file)


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[tuple[Client, Clock]]:
    clock = Clock(path)
    with ExitStack() as leftovers:
        async with (
            coordinator_process(path / "data", within=clock.within) as coordinator,
            client_of(coordinator.port, path / "data" / "drive") as client,
        ):
            leftovers.callback(forget, coordinator.process.pid)
            yield client, clock


def forget(pid: int) -> None:
    """Remove what libfaketime shared of a process that has ended: a killed one leaves it."""
    for name in ("faketime_shm_", "sem.faketime_sem_"):
        Path(f"/dev/shm/{name}{pid}").unlink(missing_ok=True)


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_set_ends_no_job_and_keeps_none(tmp_path: Path, hours: int) -> None:
    async with running(tmp_path) as (client, clock):
        long = await client.submit(WAITS, scheduling_config={"max_runtime_seconds": 600})
        short = await client.submit(WAITS, scheduling_config={"max_runtime_seconds": 6})
        await client.until_line(long, "ready")
        clock.set(hours * HOUR)
        # Whatever changes makes the coordinator look at the clock.
        other = await client.submit("pass")
        ended = await client.end(other)
        assert status_of(ended) == "COMPLETED"
        offset = ended.created_at.ToSeconds() - (await client.job(long)).created_at.ToSeconds()
        assert offset >= (HOUR if hours > 0 else 0)
        job = await client.end(short)
        assert "max_runtime_seconds of 6" in job.error_message
        assert job.ended_at.ToMicroseconds() >= job.started_at.ToMicroseconds()
        assert status_of(await client.job(long)) == "TRAINING"
        queue = await client.call("GetQueueStatus", GetQueueStatusRequest())
        assert queue.estimated_wait_seconds >= 0


async def test_jobs_stay_in_order_when_the_clock_is_set_back(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, clock):
        whole = {"cpu_count": 4}
        first = await client.submit(WAITS, resource_config=whole)
        await client.until_line(first, "ready")
        jobs = [first]
        for hours in (0, -1, -2):
            clock.set(hours * HOUR)
            jobs.append(await client.submit("pass", resource_config=whole))
        queue = await client.call("GetQueueStatus", GetQueueStatusRequest())
        assert [job.job_id for job in queue.queued_jobs] == jobs[1:]
        listed: list[str] = []
        token = ""
        while True:
            page = await client.call("ListJobs", ListJobsRequest(page_size=2, page_token=token))
            listed += [job.job_id for job in page.jobs]
            if not (token := page.next_page_token):
                break
        assert listed == jobs[::-1]
