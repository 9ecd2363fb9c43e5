"""Sees that a run uses no more than it asked for, where the kernel does not see to that."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app.coordinator.resources import usage
from app.coordinator.resources.cgroups import RunGroup
from app.coordinator.resources.disk_use import disk_use

#: Seconds between two readings.
INTERVAL: Final = 1.0
#: Seconds between two looks at what was written.
DISK_INTERVAL: Final = 5.0
#: Readings over a limit, one behind the other, that end a run.
READINGS: Final = 3
#: A reading that takes long is followed by a pause of so many times that.
_LEISURE: Final = 20
#: Readings between two looks for memory that is mapped nowhere.
_SELDOM: Final = 5
_MIB: Final = 1024**2
_GIB: Final = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a run may use; 0 sets no bound."""

    #: Bytes of main memory.
    memory: int = 0
    #: Processes and threads.
    tasks: int = 0
    #: Bytes and files below `directories`.
    disk_bytes: int = 0
    files: int = 0
    directories: tuple[str, ...] = field(default=())
    #: How much lower the priority of its sessions is.
    nice: int = 0
    #: Where the group is made that limits the memory, too; empty where none can be.
    group: str = ""

    @classmethod
    def of(cls, limits: dict[str, Any]) -> "Bounds":
        """Those in the section `limits` of a run's specification."""
        return cls(
            memory=limits.get("memory", 0),
            tasks=limits.get("tasks", 0),
            disk_bytes=limits.get("disk_bytes", 0),
            files=limits.get("files", 0),
            directories=tuple(limits.get("directories", ())),
            nice=limits.get("nice", 0),
            group=limits.get("group", ""),
        )


class ResourceWatch:
    """Reads in a thread of its own: a reading may take long. Without bounds it does nothing."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._reason = ""
        self._problem = ""
        self._processes: ProcessReadings | None = None
        self._group: RunGroup | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def enclose(self, first_pid: int) -> None:
        """Have the kernel limit the memory of a process, and of all that it starts, where that is
        possible; else it is only read. Call it before the process starts anything."""
        bounds = self._bounds
        if not bounds.group or not bounds.memory:
            return
        try:
            group = RunGroup(Path(bounds.group), memory=bounds.memory)
            group.enclose(first_pid)
        except OSError as error:
            self._problem = f"The kernel does not limit the run's memory: {error.strerror}."
        else:
            self._group = group

    def start(self, first_pid: int, *, own_shared_memory: bool) -> None:
        """Begin; after whatever is to be forked.

        All that is below process `first_pid` is the run. `own_shared_memory`
        tells that its `/dev/shm` is the run's alone.
        """
        bounds = self._bounds
        if bounds.memory or bounds.tasks or bounds.nice:
            self._processes = ProcessReadings(
                bounds, first_pid, own_shared_memory=own_shared_memory
            )
            self._run("resource watch", self._processes.take, INTERVAL)
        if bounds.directories and (bounds.disk_bytes or bounds.files):
            self._run("disk watch", DiskReadings(bounds).take, DISK_INTERVAL)

    def reason(self) -> str:
        """Why the run has to end; empty while it has not to."""
        return self._reason

    def over(self) -> str:
        """What processes that were ended by somebody else were over, if anything: the kernel ends
        a run sooner than readings can."""
        if self._group is not None and self._group.killed():
            return f"used {in_words(self._bounds.memory, self._bounds.memory)} asked"
        return self._processes.over if self._processes is not None else ""

    def take_problem(self) -> str:
        """Why the watch has ended before the run; told once."""
        problem, self._problem = self._problem, ""
        return problem

    def close(self) -> None:
        """Stop, and wait until nothing is read any more. The run is over."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._group is not None:
            self._group.remove()

    def _run(self, name: str, take: Callable[[], str], interval: float) -> None:
        def readings() -> None:
            pause = interval
            while not self._stop.wait(pause):
                began = time.monotonic()
                try:
                    reason = take()
                except Exception as error:
                    # Who only looks at a run must not end it.
                    self._problem = f"The {name} has failed, and limits nothing more: {error!r}."
                    return
                if reason:
                    self._reason = self._reason or reason
                    return
                pause = max(interval, _LEISURE * (time.monotonic() - began))

        thread = threading.Thread(target=readings, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


class ProcessReadings:
    """Readings of a run's processes."""

    def __init__(self, bounds: Bounds, first_pid: int, *, own_shared_memory: bool) -> None:
        self._bounds = bounds
        self._first_pid = first_pid
        self._own_shared_memory = own_shared_memory
        #: What the newest reading was over; empty if it was within the limits.
        self.over = ""
        self._taken = 0
        self._unnamed = 0
        self._over_memory = 0
        self._over_tasks = 0

    def take(self) -> str:
        """Take a reading; why the run has to end, or nothing."""
        bounds = self._bounds
        tasks = usage.tasks_below(self._first_pid, most=bounds.tasks or 1_000_000)
        if bounds.nice:
            usage.lower_sessions(tasks.pids, bounds.nice)
        if bounds.tasks and tasks.count > bounds.tasks:
            self._over_tasks += 1
        else:
            self._over_tasks = 0
        used = self._memory(tasks.pids) if bounds.memory else 0
        self._over_memory = self._over_memory + 1 if used > bounds.memory else 0
        self._taken += 1
        self.over = f"used {in_words(used, bounds.memory)} asked" if self._over_memory else ""
        if self._over_memory >= READINGS:
            return self.over
        if self._over_tasks >= READINGS:
            return f"ran more than the {bounds.tasks} processes and threads allowed (job_processes)"
        return ""

    def _memory(self, pids: list[int]) -> int:
        """Bytes in use; what could not be over the limit is only estimated from above."""
        files = usage.shared_memory_bytes(self._first_pid) if self._own_shared_memory else 0
        if self._taken % _SELDOM == 0 or self._over_memory:
            self._unnamed = usage.unnamed_memory_bytes(pids)
        files += self._unnamed
        at_most = usage.resident_bytes(pids) + files
        if at_most <= self._bounds.memory:
            return at_most
        share = usage.proportional_share(pids)
        # Files in memory that are mapped are in both.
        return share.anonymous + max(share.shared, files)


class DiskReadings:
    """Readings of what a run has written."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    def take(self) -> str:
        """Take a reading; why the run has to end, or nothing."""
        bounds = self._bounds
        use = disk_use(
            bounds.directories,
            most_bytes=bounds.disk_bytes or 1 << 62,
            most_files=bounds.files or 1 << 62,
        )
        if bounds.disk_bytes and use.size_bytes > bounds.disk_bytes:
            return f"wrote {in_words(use.size_bytes, bounds.disk_bytes)} allowed (job_disk_bytes)"
        if bounds.files and use.files > bounds.files:
            return f"made more than the {bounds.files} files allowed (job_files)"
        return ""


def in_words(used: int, limit: int) -> str:
    """An amount and its limit, in the limit's unit: `9.1 GiB of the 8.0 GiB`."""
    unit, name = (_GIB, "GiB") if limit >= _GIB else (_MIB, "MiB")
    return f"{used / unit:.1f} {name} of the {limit / unit:.1f} {name}"
