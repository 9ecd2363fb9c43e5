"""Ends a run that uses more than it asked for, where the kernel does not."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app.coordinator.resources import usage
from app.coordinator.resources.cgroups import RunGroup
from app.coordinator.resources.disk_use import disk_use
from app.coordinator.resources.memory_readings import MemoryReader
from app.coordinator.resources.open_files import (
    TooManyFiles,
    devices_of,
    file_bytes,
    unlinked_bytes,
)

#: Seconds between two readings.
INTERVAL: Final = 1.0
#: Seconds between two looks at what was written.
DISK_INTERVAL: Final = 5.0
#: Readings over a limit that end a run, and of how many.
READINGS: Final = 3
OF_THE_LAST: Final = 5
#: A reading that takes long is followed by a pause of so many times that; of processes, of no more
#: seconds, and of fewer after one that was over.
_LEISURE: Final = 20
_LONGEST_PAUSE: Final = 10.0
_HURRIED_PAUSE: Final = 2.0
#: Tasks that are looked at where their number is not bounded.
_MOST_TASKS: Final = 1_000_000
#: More than any disk has.
_MANY: Final = 1 << 62
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
    #: A single file that counts, too; empty if there is none.
    file: str = ""
    #: Bytes below `checkpoints`.
    checkpoint_bytes: int = 0
    checkpoints: str = ""
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
            file=limits.get("file", ""),
            checkpoint_bytes=limits.get("checkpoint_bytes", 0),
            checkpoints=limits.get("checkpoints", ""),
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
            self._run(
                "resource watch",
                self._processes.take,
                INTERVAL,
                lambda: _HURRIED_PAUSE if self.over() else _LONGEST_PAUSE,
            )
        if bounds.directories and (bounds.disk_bytes or bounds.files or bounds.checkpoint_bytes):
            self._run("disk watch", DiskReadings(bounds, first_pid).take, DISK_INTERVAL)

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

    def _run(
        self,
        name: str,
        take: Callable[[], str],
        interval: float,
        longest: Callable[[], float] = lambda: math.inf,
    ) -> None:
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
                pause = max(interval, min(_LEISURE * (time.monotonic() - began), longest()))

        thread = threading.Thread(target=readings, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


class ProcessReadings:
    """Readings of a run's processes."""

    def __init__(self, bounds: Bounds, first_pid: int, *, own_shared_memory: bool) -> None:
        self._bounds = bounds
        self._first_pid = first_pid
        self._memory = MemoryReader(
            first_pid, limit=bounds.memory, own_shared_memory=own_shared_memory
        )
        #: What the newest reading was over; empty if it was within the limits.
        self.over = ""
        #: What each of the last readings was over.
        self._over_memory: deque[str] = deque(maxlen=OF_THE_LAST)
        self._over_tasks: deque[str] = deque(maxlen=OF_THE_LAST)

    def take(self) -> str:
        """Take a reading; why the run has to end, or nothing."""
        bounds = self._bounds
        most = bounds.tasks or _MOST_TASKS
        tasks = usage.tasks_below(self._first_pid, most=most)
        if bounds.nice:
            usage.lower_sessions(tasks.pids, bounds.nice)
        self._over_tasks.append(
            f"ran more than the {bounds.tasks} processes and threads allowed (job_processes)"
            if bounds.tasks and tasks.count > bounds.tasks
            else ""
        )
        if bounds.memory:
            self._read_memory(tasks, most)
        return _lasting(self._over_memory) or _lasting(self._over_tasks)

    def _read_memory(self, tasks: usage.Tasks, most: int) -> None:
        limit = self._bounds.memory
        reading = self._memory.take(tasks, most=most, thorough=any(self._over_memory))
        self.over = f"used {in_words(reading.used, limit)} asked" if reading.used > limit else ""
        over = self.over
        if not over and reading.too_many:
            over = f"had more than {reading.too_many}, so that its memory could not be measured"
        # One that missed a process and is within the limit proves nothing.
        if over or reading.complete:
            self._over_memory.append(over)


def _lasting(over: deque[str]) -> str:
    """What enough of the last readings were over, as the newest of them says; else nothing."""
    found = [each for each in over if each]
    return found[-1] if len(found) >= READINGS else ""


class DiskReadings:
    """Readings of what a run has written."""

    def __init__(self, bounds: Bounds, first_pid: int) -> None:
        self._bounds = bounds
        self._first_pid = first_pid

    def take(self) -> str:
        """Take a reading; why the run has to end, or nothing."""
        return self._of_run() or self._of_checkpoints()

    def _of_run(self) -> str:
        bounds = self._bounds
        use = disk_use(
            bounds.directories,
            most_bytes=bounds.disk_bytes or _MANY,
            most_files=bounds.files or _MANY,
        )
        if bounds.disk_bytes:
            if bounds.file:
                use.size_bytes += file_bytes(bounds.file)
            tasks = usage.tasks_below(self._first_pid, most=bounds.tasks or _MOST_TASKS)
            places = [*bounds.directories, bounds.file, bounds.checkpoints]
            try:
                use.size_bytes += unlinked_bytes(tasks.pids, devices_of(places))
            except TooManyFiles as error:
                return f"has more than {error.limit} files open: they cannot be counted"
        if bounds.disk_bytes and use.size_bytes > bounds.disk_bytes:
            return f"wrote {in_words(use.size_bytes, bounds.disk_bytes)} allowed (job_disk_bytes)"
        if bounds.files and use.files > bounds.files:
            return f"made more than the {bounds.files} files allowed (job_files)"
        return ""

    def _of_checkpoints(self) -> str:
        limit = self._bounds.checkpoint_bytes
        if not limit or not self._bounds.checkpoints:
            return ""
        use = disk_use([self._bounds.checkpoints], most_bytes=limit, most_files=_MANY)
        if use.size_bytes <= limit:
            return ""
        about = in_words(use.size_bytes, limit)
        return f"has checkpoints of {about} allowed (job_checkpoint_bytes)"


def in_words(used: int, limit: int) -> str:
    """An amount and its limit, in the limit's unit: `9.1 GiB of the 8.0 GiB`."""
    unit, name = (_GIB, "GiB") if limit >= _GIB else (_MIB, "MiB")
    return f"{used / unit:.1f} {name} of the {limit / unit:.1f} {name}"
