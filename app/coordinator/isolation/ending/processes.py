"""Ends what is below a process, though nothing holds it together: no namespace, no session."""

import contextlib
import os
import signal
import time
from typing import Final

from app.coordinator.isolation.ending.user_processes import kill_all_of, remove_shared_memory

#: Seconds between two rounds in which nothing was found to kill.
_PAUSE: Final = 0.002


def children_of(pid: int) -> list[int]:
    """The children of all threads of a process; none if it is gone."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file,
        ):
            found += map(int, file.read().split())
    return found


def descendants_of(pid: int) -> list[int]:
    """All that came of a process and lives, as far as it still is below it."""
    found: list[int] = []
    open_pids = children_of(pid)
    while open_pids:
        one = open_pids.pop()
        found.append(one)
        open_pids += children_of(one)
    return found


def kill_descendants() -> bool:
    """Kill all that is below this process now; whether there was anything."""
    found = descendants_of(os.getpid())
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def end_descendants(uid: int | None) -> None:
    """Kill and reap all that is below this process, a subreaper, until nothing is left.

    `uid` is the user id that all of it has, if it is not this process's. Raises OSError; then
    some of it may live.
    """
    while _reap():
        if uid is not None:
            kill_all_of(uid)
        elif kill_descendants():
            # What forks on is met only by who is faster.
            continue
        time.sleep(_PAUSE)
    if uid is not None:
        remove_shared_memory(uid)


def _reap() -> bool:
    """Collect what has ended; False when nothing is left."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True
