"""How many processes and threads all runs together may have.

The kernel counts processes and threads alike, and has several bounds of them
at once. Where none can be made any more, nobody goes on: gRPC ends the
coordinator's process, and no job can be started or ended.
"""

import os
import resource
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from app.coordinator.resources.cgroups import MOUNTED

#: Left of a bound for the system and the coordinator, but at most a quarter of it.
_RESERVE: Final = 512
#: What the coordinator has for a run besides the run's own: its runner with threads, its sandbox.
_OF_RUNNER: Final = 8
#: With fewer Python and its libraries do not start.
SMALLEST_SHARE: Final = 16
_GROUP_LIMIT: Final = "/pids.max"
_RUNNER: Final = "app.coordinator.engines.local.runner"


@dataclass(frozen=True, slots=True)
class ProcessRoom:
    """The tightest bound of processes and threads here."""

    #: What all runs that may be at once can have together.
    left: int
    #: What sets the bound, and the bound.
    source: str
    limit: int

    def share(self, part: int, parts: int) -> int:
        """What a run may have that is given `part` of `parts`; the sum over all parts is at most
        `left`, unless that is less than SMALLEST_SHARE each."""
        return max(SMALLEST_SHARE, self.left * part // parts)


@dataclass(frozen=True, slots=True)
class Tasks:
    """Processes and threads that are there now, without those of runs."""

    #: All that are seen.
    others: int
    #: Those of this user.
    own: int
    #: Those of runs that go on.
    of_runs: int


def find_process_room(
    *, runs: int, mounted: Path = MOUNTED, proc: Path = Path("/proc")
) -> ProcessRoom:
    """The room for at most `runs` runs at once. Blocks shortly. Raises OSError."""
    tasks = _count_tasks()
    rooms = [
        ProcessRoom(_left(limit, taken, runs), source, limit)
        for source, limit, taken in _bounds(tasks, mounted, proc)
    ]
    return min(rooms, key=lambda room: room.left)


def most_of_user(room: ProcessRoom) -> int:
    """Return how many processes and threads this user may have in all while the runs keep to
    `room`; 0 if that cannot be told.

    The kernel counts a user's processes over all containers, and only those of
    this one are seen: a bound of the container says nothing about them.
    """
    if os.getuid() == 0 or room.source.endswith(_GROUP_LIMIT):
        return 0
    return _count_tasks().own + room.left


def _left(limit: int, taken: int, runs: int) -> int:
    return max(0, limit - taken - min(_RESERVE, limit // 4) - _OF_RUNNER * runs)


def _bounds(tasks: Tasks, mounted: Path, proc: Path) -> Iterator[tuple[str, int, int]]:
    """Each bound: its name, how many, and how many are taken by others than runs."""
    for name in ("pid_max", "threads-max"):
        path = proc / "sys/kernel" / name
        yield str(path), int(path.read_text(encoding="ascii")), tasks.others
    own, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    # The kernel does not hold root to it.
    if own != resource.RLIM_INFINITY and os.getuid() != 0:
        yield "RLIMIT_NPROC", own, tasks.own
    for group in _groups(mounted, proc):
        # The root group has none, and an older kernel's groups may have neither.
        with suppress(OSError, ValueError):
            # `max` is no number: no bound.
            limit = int((group / "pids.max").read_text(encoding="ascii"))
            current = int((group / "pids.current").read_text(encoding="ascii"))
            yield f"{group}{_GROUP_LIMIT}", limit, max(0, current - tasks.of_runs)


def _groups(mounted: Path, proc: Path) -> Iterator[Path]:
    """This process's control groups and all above them, of version 2 and of version 1's `pids`."""
    with suppress(OSError):
        for line in (proc / "self/cgroup").read_text(encoding="utf-8").splitlines():
            number, controllers, path = line.split(":", 2)
            if number != "0" and "pids" not in controllers.split(","):
                continue
            root = mounted if number == "0" else mounted / "pids"
            # Above the root of its namespace a group is shown as `/..`; that cannot be looked into.
            parts = [part for part in path.split("/") if part and part != ".."]
            for count in range(len(parts), -1, -1):
                yield root.joinpath(*parts[:count])


def _count_tasks() -> Tasks:
    counts: dict[int, int] = {}
    owners: dict[int, int] = {}
    children: dict[int, list[int]] = defaultdict(list)
    runners: list[int] = []
    for process in psutil.process_iter():
        # It may be gone, or belong to somebody who hides it.
        with suppress(psutil.Error), process.oneshot():
            counts[process.pid] = process.num_threads()
            owners[process.pid] = process.uids().real
            children[process.ppid()].append(process.pid)
            if _RUNNER in process.cmdline():
                runners.append(process.pid)
    of_runs: set[int] = set()
    while runners:
        pid = runners.pop()
        if pid not in of_runs:
            of_runs.add(pid)
            runners += children[pid]
    others = {pid: count for pid, count in counts.items() if pid not in of_runs}
    return Tasks(
        others=sum(others.values()),
        own=sum(count for pid, count in others.items() if owners[pid] == os.getuid()),
        of_runs=sum(count for pid, count in counts.items() if pid in of_runs),
    )
