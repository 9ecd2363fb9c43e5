"""What the processes of a run use, as proc(5) tells it.

Processes come and go while they are looked at, and their numbers are given to
others: what cannot be read any more counts nothing, and is told as gone. A look
is bounded by the number of tasks that it is given, whatever a job starts.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
#: Open files, and mappings, that a look for memory without a name sees.
MOST_FILES: Final = 200_000
MOST_MAPPINGS: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Tasks:
    """What runs below a process."""

    pids: list[int]
    #: Processes and threads; one more than the bound where there are more.
    count: int
    #: Processes that ended while they were looked at: what they started may be missing.
    gone: int = 0


def tasks_below(pid: int, *, most: int) -> Tasks:
    """What came of process `pid` and is below it; `pid` itself is left out.

    Looks at no more than `most` tasks and one.
    """
    found: list[int] = []
    count = gone = 0
    pending = _children(pid, most)[0]
    while pending and count <= most:
        one = pending.pop()
        children, tasks = _children(one, most - count)
        if tasks:
            found.append(one)
            count += tasks
            pending += children
        else:
            gone += 1
    return Tasks(found, min(count, most + 1), gone)


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


@dataclass(frozen=True, slots=True)
class Resident:
    """What is in memory of processes."""

    #: The sum: what several share counts for each of them.
    size: int
    #: Those that have memory, each by the number of a thread that can be asked about it.
    pids: list[int]
    #: Those that ended before they were read.
    gone: int


def resident(pids: Iterable[int]) -> Resident:
    """What is in memory of each; costs some microseconds a process."""
    size = gone = 0
    held: list[int] = []
    for pid in pids:
        one = _holder(pid)
        if one is None:
            gone += 1
        elif one.pages:
            size += one.resident
            held.append(one.pid)
    return Resident(size, held, gone)


@dataclass(frozen=True, slots=True)
class _Statm:
    pid: int
    #: Of its address space; a zombie has none.
    pages: int
    #: In bytes.
    resident: int


def _holder(pid: int) -> _Statm | None:
    """The first of a process's threads that has memory: its first thread may have ended before
    the others. None if the process is gone."""
    first = _statm(pid)
    if first is None or first.pages:
        return first
    with suppress(OSError):
        for tid in os.listdir(f"/proc/{pid}/task"):
            other = _statm(int(tid))
            if other is not None and other.pages:
                return other
    return first


def _statm(pid: int) -> _Statm | None:
    with suppress(OSError, IndexError), open(f"/proc/{pid}/statm", "rb") as file:
        told = file.read().split()
        return _Statm(pid, int(told[0]), int(told[1]) * _PAGE)
    return None


@dataclass(frozen=True, slots=True)
class Share:
    """Memory that processes use, each page split among those who map it (PSS)."""

    #: That is of no file; swapped out pages do not count.
    anonymous: int
    #: Of shared memory and files in memory.
    shared: int
    #: Processes that ended before they were read.
    gone: int = 0


def proportional_share(pids: Iterable[int]) -> Share:
    """The memory of processes without the pages of files on a disk, which can be dropped.

    Costs about 10 ms a GiB.
    """
    anonymous = shared = gone = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                told = dict(line.split(b":", 1) for line in file if b":" in line)
        except OSError:
            gone += 1
            continue
        with suppress(ValueError):
            if b"Pss_Anon" in told:
                anonymous += _kilobytes(told[b"Pss_Anon"])
                shared += _kilobytes(told.get(b"Pss_Shmem", b"0"))
            else:
                # Before Linux 5.9 the sum alone is told.
                anonymous += _kilobytes(told.get(b"Pss", b"0"))
    return Share(anonymous, shared, gone)


def _kilobytes(text: bytes) -> int:
    return int(text.split()[0]) * 1024


def lower_sessions(pids: Iterable[int], nice: int) -> None:
    """Set the priority of the sessions of processes to that which `nice` gives a process.

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


@dataclass(frozen=True, slots=True)
class Unnamed:
    """Files in memory that have no name."""

    #: Bytes of those that were seen, each once.
    size: int
    #: What there is too much of to see all; empty if all was seen.
    too_many: str
    #: Processes that ended before they were read.
    gone: int


def unnamed_memory(pids: Iterable[int]) -> Unnamed:
    """What files in memory take that have no name: memfd_create(2), shared anonymous mappings.

    They need not be mapped anywhere; those that are mapped count whole, even
    if no page of them is in a page table, where the caller has
    CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the first user namespace. Those
    in flight in a socket are seen by nobody. Costs about 6 microseconds an
    open file, and one a mapping.
    """
    found: dict[tuple[int, int], int] = {}
    files, mappings = MOST_FILES, MOST_MAPPINGS
    gone = 0
    for pid in pids:
        try:
            for path in _mapped_files(pid):
                mappings -= 1
                if mappings < 0:
                    return Unnamed(sum(found.values()), f"{MOST_MAPPINGS:,} mappings", gone)
                if path:
                    _add(path, found)
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    files -= 1
                    if files < 0:
                        return Unnamed(sum(found.values()), f"{MOST_FILES:,} open files", gone)
                    with suppress(OSError):
                        if os.readlink(entry.path).startswith(_UNNAMED):
                            _add(entry.path, found)
        except OSError:
            gone += 1
    return Unnamed(sum(found.values()), "", gone)


#: How proc(5) calls files in memory without a name.
_UNNAMED: Final = ("/memfd:", "/dev/zero (deleted)")


def _mapped_files(pid: int) -> Iterator[str]:
    """A path for each mapping of a process: where its file is, if that has no name, else empty."""
    names = tuple(name.encode() for name in _UNNAMED)
    with open(f"/proc/{pid}/maps", "rb") as file:
        for line in file:
            fields = line.split(None, 5)
            unnamed = len(fields) == 6 and fields[5].startswith(names)
            yield f"/proc/{pid}/map_files/{fields[0].decode()}" if unnamed else ""


def _add(path: str, found: dict[tuple[int, int], int]) -> None:
    with suppress(OSError):
        about = os.stat(path)
        found[about.st_dev, about.st_ino] = about.st_blocks * 512
