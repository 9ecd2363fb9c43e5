"""Main memory that stays available on this machine, at the cost of jobs that asked for none.

What a job asks as `memory_bytes` is accounted, and its run is held to it. Jobs
that ask for none are placed without regard to memory; when it becomes short,
the newest of them is ended, and only when that one is gone and memory is still
short the next.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import structlog

from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.states import RUNNING

#: Seconds between two readings.
INTERVAL: Final = 0.5
#: Readings below the reserve, one behind the other, before a job is ended.
READINGS: Final = 2
#: Seconds for which memory that an ended job had may take to come back.
SETTLING: Final = 2.0
_MIB: Final = 1024**2
_CGROUPS: Final = Path("/sys/fs/cgroup")

log = structlog.get_logger("scaimind.coordinator")


class MemoryReserve:
    """Ends jobs while there is less memory than the reserve."""

    def __init__(
        self,
        reserve: int,
        *,
        jobs: Callable[[], Iterable[JobRecord]],
        end: Callable[[str, str], None],
        available: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`jobs` are those that have not ended; `end` ends the run of one, by its id, for a
        reason; `available` is what there is in bytes."""
        self._reserve = reserve
        self._jobs = jobs
        self._end = end
        self._available = available
        self._clock = clock
        self._short = 0
        #: Whether a job was ended for the present shortage, and when it was gone.
        self._ended = False
        self._gone_at: float | None = None
        self._complained = False

    async def run(self) -> None:
        """Look at it again and again, until cancelled."""
        while self._reserve:
            await asyncio.sleep(INTERVAL)
            try:
                self.look()
            except Exception as error:  # the next reading may do better, and jobs need none
                log.error("memory_not_looked_at", reason=str(error), exc_info=error)

    def look(self) -> None:
        """Take a reading, and end a job if it is time. Raises what `end` and `available` do."""
        if self._waits_for_the_last():
            return
        if self._available() >= self._reserve:
            self._short = 0
            self._complained = False
            return
        self._short += 1
        if self._short < READINGS:
            return
        victim = newest_without_memory(self._jobs())
        if victim is None:
            if not self._complained:
                self._complained = True
                log.warning(
                    "memory_short",
                    reason="all running jobs have memory_bytes, or none is running",
                    advice="Check what else uses memory on this machine.",
                    shared_memory=shared_memory(),
                )
            return
        # Memory that a job hides is of this kind (docs/security.md).
        log.warning("memory_short", ended=victim.job_id, shared_memory=shared_memory())
        self._end(
            victim.job_id,
            f"The machine had less than {self._reserve / _MIB:.0f} MiB of memory left"
            " (memory_reserve), and this was the newest job without memory_bytes. Set"
            " memory_bytes to protect the next run.",
        )
        self._short = 0
        self._ended, self._gone_at = True, None

    def _waits_for_the_last(self) -> bool:
        """Whether the job that was ended last is there, or was a moment ago."""
        if not self._ended:
            return False
        if any(
            job.stop_reason is StopReason.MEMORY and job.status in RUNNING for job in self._jobs()
        ):
            return True
        if self._gone_at is None:
            self._gone_at = self._clock()
        if self._clock() - self._gone_at < SETTLING:
            return True
        self._ended = False
        return False


def newest_without_memory(jobs: Iterable[JobRecord]) -> JobRecord | None:
    """The job to end first: of those that run, asked for no memory and are not leaving yet, the
    one whose run began last."""
    able = [
        job
        for job in jobs
        if job.status in RUNNING
        and job.stop_reason is StopReason.NONE
        and not job.resource_request.memory
    ]
    return max(able, key=lambda job: (job.run_started_at, job.job_id), default=None)


def available_memory(cgroups: Path = _CGROUPS, proc: Path = Path("/proc")) -> int:
    """Bytes that processes of this machine, or of this container, can still be given.

    Of a container with a limit (cgroup v2), what is left of the limit; caches
    that can be dropped count as available.
    """
    available = _meminfo("MemAvailable", proc)
    for folder in _own_cgroups(cgroups, proc):
        try:
            limit = (folder / "memory.max").read_text(encoding="ascii").strip()
            used = int((folder / "memory.current").read_text(encoding="ascii"))
            about = (folder / "memory.stat").read_text(encoding="ascii")
        except (OSError, ValueError):
            # Not a controller of this group.
            continue
        if limit.isdecimal():
            counts = dict(line.split() for line in about.splitlines())
            used -= int(counts.get("inactive_file", 0))
            available = min(available, max(int(limit) - used, 0))
    return available


def shared_memory(proc: Path = Path("/proc")) -> int:
    """Bytes that files in memory and shared mappings take on this machine, whoever has them."""
    return _meminfo("Shmem", proc)


def _meminfo(name: str, proc: Path) -> int:
    told = dict(
        line.split(":", 1) for line in (proc / "meminfo").read_text(encoding="ascii").splitlines()
    )
    return int(told[name].split()[0]) * 1024


def _own_cgroups(cgroups: Path, proc: Path) -> list[Path]:
    """The group of this process in the unified hierarchy, and those above it."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if own is None or ".." in own.split("/"):
        return []
    folder = cgroups / own.strip("/")
    return [folder, *(above for above in folder.parents if above.is_relative_to(cgroups))]
