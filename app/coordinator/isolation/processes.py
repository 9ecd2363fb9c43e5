"""Ends processes that nothing holds together: no namespace, no group, no session.

As a program, see `programs`, with the argument UID it ends every process of a job's user id.
"""

import contextlib
import os
import signal
import sys
import time
from typing import Final

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


def kill_all_of(uid: int) -> None:
    """Kill every process of a user id at once, so that none forks away. Raises OSError."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            os._exit(0)
        except OSError:
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)


def kill_descendants() -> bool:
    """Kill all that is below this process now; whether there was anything."""
    found = descendants_of(os.getpid())
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def end_descendants(uid: int | None) -> None:
    """Kill and reap all that is below this process, a subreaper, until nothing is left.

    `uid` is the user id that all of it has, if it is not this process's.
    """
    while _reap():
        if uid is None:
            kill_descendants()
        else:
            kill_all_of(uid)
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


def pids_of(uid: int) -> list[int]:
    """The processes of a user id that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file,
        ):
            status = dict(line.split(":", 1) for line in file if ":" in line)
            if int(status["Uid"].split()[0]) == uid and status["State"].strip()[0] not in "ZX":
                found.append(int(name))
    return found


def remove_shared_memory(uid: int) -> None:
    """Remove what a user id, of which nothing runs any more, left in `/dev/shm`."""
    with contextlib.suppress(FileNotFoundError), os.scandir("/dev/shm") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == uid:
                    os.unlink(entry.path)


def main() -> int:
    """End every process of the user id that is the argument, and what it left in memory."""
    uid = int(sys.argv[1])
    while pids_of(uid):
        kill_all_of(uid)
        time.sleep(_PAUSE)
    remove_shared_memory(uid)
    return 0
