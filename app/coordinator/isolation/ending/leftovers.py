"""Ends what a killed runner left behind."""

import os
import select
import signal
from contextlib import suppress
from typing import Any, Final

from app.coordinator.isolation.ending.marked_processes import end_marked
from app.coordinator.isolation.ending.user_processes import end_all_of
from app.coordinator.isolation.levels import Level
from app.coordinator.isolation.uid_locks import hold
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
        _end_user(isolation["uid"])
    if not end_marked(f"{_MARKER}={marker}", patience=_KILLED):
        raise StillThere


def _end_user(uid: int) -> None:
    lock = hold(uid)
    if lock is None:
        # Another run has the id by now. Who gave it to that has ended all that was left.
        return
    with lock:
        if not end_all_of(uid, patience=_KILLED):
            raise StillThere


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
