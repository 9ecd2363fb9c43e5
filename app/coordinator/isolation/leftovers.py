"""Ends what a killed runner left behind."""

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import Any, Final

import psutil

from app.coordinator.isolation import programs
from app.coordinator.isolation.levels import Level
from app.coordinator.storage.process_identity import open_process

#: Seconds for the first process to see that the runner is gone, and to end everything itself.
_PATIENCE: Final = 5.0
#: Seconds for the kernel to end what was killed.
_KILLED: Final = 30.0
#: The variable of a rank that is another one for each run.
_MARKER: Final = "SCAIMIND_METRICS_FILE"


class StillThere(OSError):
    """Something of a run does not end, though it was killed: a device hangs, most likely."""

    def __init__(self) -> None:
        super().__init__(16, "a process of the run was killed and does not end")


def end_leftovers(who: dict[str, Any], isolation: dict[str, Any], *, marker: str) -> None:
    """End everything of a run whose runner is gone.

    `who` is what the runner wrote about itself and what it started,
    `isolation` that section of the specification, and `marker` the run's
    metrics file. Blocks until nothing is left. Raises StillThere, OSError.
    """
    # In this order: the end of process 1 is the end of its namespace.
    for mark in who.get("sandbox", ()):
        _end(mark)
    if isolation["level"] == Level.NAMESPACES:
        return
    if link := isolation.get("temporary_link"):
        with suppress(FileNotFoundError):
            os.unlink(link)
    if isolation["uid"] is not None:
        _end_all_of(isolation["uid"])
    _end_marked(marker)


def _end(mark: dict[str, Any]) -> None:
    pidfd = open_process(mark)
    if pidfd is None:
        return
    try:
        ends = select.poll()
        ends.register(pidfd, select.POLLIN)
        if ends.poll(_PATIENCE * 1000):
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not ends.poll(_KILLED * 1000):
            raise StillThere
    finally:
        os.close(pidfd)


def _end_all_of(uid: int) -> None:
    try:
        subprocess.run(
            programs.command("processes", str(uid)),
            stdin=subprocess.DEVNULL,
            env={"PATH": os.defpath},
            timeout=_KILLED,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise StillThere from None
    except subprocess.CalledProcessError as error:
        raise OSError(1, f"the processes of user {uid} cannot be ended") from error


def _end_marked(marker: str) -> None:
    """End the processes that bear the run's mark, as long as there are any.

    A process that took the mark off itself, and whose runner and first
    process were both killed, is not found. With Linux 6.12 no job can do that.
    """
    deadline = time.monotonic() + _KILLED
    while found := [process for process in psutil.process_iter() if _is_marked(process, marker)]:
        if time.monotonic() > deadline:
            raise StillThere
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1)


def _is_marked(process: psutil.Process, marker: str) -> bool:
    with suppress(psutil.Error, ProcessLookupError):
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARKER) == marker
    return False
