"""Ends processes that bear a mark in their environment, where nothing else tells whose they are.

No list of `/proc` holds a process that lives for a moment, so this looks again
and again, at the newest first, and stops what it finds before it kills it.
"""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from app.coordinator.isolation.ending.processes import children_of

#: Passes in a row in which nothing was found, before nothing is left.
_QUIET: Final = 20
#: The newest processes, which are looked at again and again within a pass.
_NEWEST: Final = 4
#: Processes that are looked at between two looks at the newest.
_BETWEEN: Final = 8


def end_marked(mark: str, *, patience: float) -> bool:
    """Kill the processes whose environment has `mark`, as `NAME=value`, and all below them.

    Returns when several passes in a row found none; False if there still are some after
    `patience` seconds. Blocks. A process without the mark, whose parent has ended, is not found.
    """
    deadline = time.monotonic() + patience
    quiet = 0
    while quiet < _QUIET:
        killed: list[int] = []
        try:
            for pid in _newest_first():
                _kill_if_marked(pid, os.fsencode(mark), killed)
            quiet = 0 if killed else quiet + 1
            if not _have_ended(killed, deadline) or (killed and time.monotonic() > deadline):
                return False
        finally:
            for pidfd in killed:
                os.close(pidfd)
    return True


def _newest_first() -> Iterator[int]:
    listed = sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True)
    for at, pid in enumerate(listed):
        if at % _BETWEEN == 0:
            with open("/proc/loadavg", encoding="ascii") as file:
                newest = int(file.read().split()[-1])
            yield from range(newest, max(newest - _NEWEST, 0), -1)
        yield pid


def _kill_if_marked(pid: int, mark: bytes, killed: list[int]) -> None:
    """Kill the process and all below it if it bears the mark; adds their pidfds to `killed`."""
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                marked = mark in file.read().split(b"\0")
        except OSError:
            marked = False
        if not marked:
            os.close(pidfd)
            return
        # The descriptor stays with the process that the number named.
        killed.append(pidfd)
        _signal(pidfd, signal.SIGSTOP)
        _stop_children(pid, killed)
        for each in killed:
            _signal(each, signal.SIGKILL)


def _stop_children(pid: int, killed: list[int]) -> None:
    """Stop everything below a process that is stopped."""
    parents = [pid]
    while parents:
        parent = parents.pop()
        for child in children_of(parent):
            with suppress(OSError):
                pidfd = os.pidfd_open(child)
                if child in children_of(parent):
                    killed.append(pidfd)
                    parents.append(child)
                    _signal(pidfd, signal.SIGSTOP)
                else:
                    os.close(pidfd)


def _signal(pidfd: int, number: signal.Signals) -> None:
    """Send a signal, if the process is there and may be signalled."""
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, number)


def _have_ended(pidfds: list[int], deadline: float) -> bool:
    """Wait until the processes have ended; False if they have not by `deadline`."""
    waiting = set(pidfds)
    ends = select.poll()
    for pidfd in waiting:
        ends.register(pidfd, select.POLLIN)
    while waiting:
        ready = ends.poll(max(deadline - time.monotonic(), 0.0) * 1000)
        if not ready:
            return False
        for pidfd, _ in ready:
            ends.unregister(pidfd)
            waiting.discard(pidfd)
    return True
