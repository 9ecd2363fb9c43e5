"""Workers of Ray that hold a node's GPUs for an actor which nobody makes any more.

A worker that was granted to a control service just when that died is never given
back by its successor: it waits for work for ever, and what it was granted with
is nobody's until it ends.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_IDLE: Final = "ray::IDLE"
#: Where a worker's stdout goes: its job's id is part of the name.
_OUTPUT: Final = re.compile(r"/worker-[0-9a-f]+-([0-9a-f]+)-\d+\.out$")


def end_idle_workers() -> int:
    """Kill the workers of this process's node and job that do nothing; returns how many.

    This process is a worker. Ray starts others when it needs them, and those of
    other jobs stay.
    """
    job = _job_of(os.getpid())
    if not job:
        return 0
    ended = 0
    for worker in psutil.Process(os.getppid()).children():
        with suppress(psutil.Error, OSError):
            if " ".join(worker.cmdline()).strip() == _IDLE and _job_of(worker.pid) == job:
                worker.kill()
                ended += 1
    return ended


def _job_of(pid: int) -> str:
    """Return the id of a worker's job; empty if it has none."""
    found = _OUTPUT.search(os.readlink(Path("/proc", str(pid), "fd", "1")))
    return found[1] if found else ""
