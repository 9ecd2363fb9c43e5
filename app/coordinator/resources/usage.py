"""What the processes of a run use, as proc(5) tells it.

Processes come and go while they are looked at, and their numbers are given to
others: what cannot be read any more counts nothing. A look is bounded by the
number of tasks that it is given, whatever a job starts.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
#: Open files that are looked at for memory that is mapped nowhere.
_MOST_FILES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Tasks:
    """What runs below a process."""

    pids: list[int]
    #: Processes and threads; one more than the bound where there are more.
    count: int


def tasks_below(pid: int, *, most: int) -> Tasks:
    """What came of process `pid` and is below it; `pid` itself is left out.

    Looks at no more than `most` tasks and one.
    """
    found: list[int] = []
    count = 0
    pending = _children(pid, most)[0]
    while pending and count <= most:
        one = pending.pop()
        children, tasks = _children(one, most - count)
        if tasks:
            found.append(one)
            count += tasks
            pending += children
    return Tasks(found, min(count, most + 1))


def _children(pid: int, most: int) -> tuple[list[int], int]:
    """The children of a process, and how many threads it has; looks at `most` of them and one."""
    children: list[int] = []
    tasks = 0
    with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
        for thread in threads:
            tasks += 1
            with suppress(OSError), open(f"{thread.path}/children", "rb") as file:
                children += map(int, file.read().split())
            if tasks > most:
                break
    return children, tasks


def resident_bytes(pids: Iterable[int]) -> int:
    """The sum of what is in memory of each: what several share counts for each of them.

    Costs some microseconds a process.
    """
    total = 0
    for pid in pids:
        with suppress(OSError, IndexError), open(f"/proc/{pid}/statm", "rb") as file:
            total += int(file.read().split()[1]) * _PAGE
    return total


@dataclass(frozen=True, slots=True)
class Share:
    """Memory that processes use, each page split among those who map it (PSS)."""

    #: That is of no file; swapped out pages do not count.
    anonymous: int
    #: Of shared memory and files in memory.
    shared: int


def proportional_share(pids: Iterable[int]) -> Share:
    """The memory of processes without the pages of files on a disk, which can be dropped.

    Costs about 10 ms a GiB.
    """
    anonymous = shared = 0
    for pid in pids:
        with suppress(OSError, ValueError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            told = dict(line.split(b":", 1) for line in file if b":" in line)
            if b"Pss_Anon" in told:
                anonymous += _kilobytes(told[b"Pss_Anon"])
                shared += _kilobytes(told.get(b"Pss_Shmem", b"0"))
            else:
                # Before Linux 5.9 the sum alone is told.
                anonymous += _kilobytes(told.get(b"Pss", b"0"))
    return Share(anonymous, shared)


def _kilobytes(text: bytes) -> int:
    return int(text.split()[0]) * 1024


def lower_sessions(pids: Iterable[int], nice: int) -> None:
    """Give the sessions of processes the priority that `nice` gives a process.

    Where the kernel groups processes by session (sched_autogroup), `nice`
    counts within one alone. A new session has 0 again.
    """
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/autogroup", "r+b", buffering=0) as file:
            if file.read().rstrip().endswith(b"nice 0"):
                file.write(b"%d" % nice)


def shared_memory_bytes(pid: int) -> int:
    """What the files in `/dev/shm` take, as process `pid` has it."""
    with suppress(OSError):
        about = os.statvfs(f"/proc/{pid}/root/dev/shm")
        return (about.f_blocks - about.f_bfree) * about.f_frsize
    return 0


def unnamed_memory_bytes(pids: Iterable[int]) -> int:
    """What files in memory take that have no name (memfd_create(2)), each counted once.

    They need not be mapped anywhere.
    """
    found: dict[int, int] = {}
    left = _MOST_FILES
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as files:
            for file in files:
                left -= 1
                if left < 0:
                    return sum(found.values())
                with suppress(OSError):
                    if os.readlink(file.path).startswith("/memfd:"):
                        about = os.stat(file.path)
                        found[about.st_ino] = about.st_blocks * 512
    return sum(found.values())
