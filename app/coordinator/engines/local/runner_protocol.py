"""The word that a runner leaves behind: how its run was over."""

import os
import signal
from typing import Any, Final

import orjson

from app.coordinator.storage.job_directory import RunDir

_RESERVE: Final = 4096


def reserve_exit(directory: RunDir) -> None:
    """Take the disk space that `leave_exit` needs, so that a full disk cannot stop it.

    What another runner of this run has taken stays as it is. Raises OSError;
    then another call takes what is missing.
    """
    with open(directory.path / "exit.reserve", "ab") as file:
        file.write(b" " * (_RESERVE - file.tell()))


def leave_exit(directory: RunDir, value: dict[str, Any]) -> None:
    """Write `exit.json`: it is there as a whole or not at all."""
    content = orjson.dumps(value)
    with open(directory.path / "exit.reserve", "r+b") as file:
        file.write(content[:_RESERVE].ljust(_RESERVE))
        file.flush()
        os.fsync(file.fileno())
    os.replace(directory.path / "exit.reserve", directory.exit)


#: How a runner is told its directory. Not by an argument: those are open to all processes.
RUN_VARIABLE: Final = "SCAIMIND_RUN_DIRECTORY"


#: How a runner is told the descriptor that holds the lock of its run's user id; not set if the run
#: has none.
LOCK_VARIABLE: Final = "SCAIMIND_UID_LOCK"


def inherited_lock() -> tuple[int, ...]:
    """The descriptor that a runner was started with to hold its run's user id, if there is one.

    From then on no process inherits it that is not given it.
    """
    number = os.environ.get(LOCK_VARIABLE)
    if number is None:
        return ()
    os.set_inheritable(int(number), False)
    return (int(number),)


#: What a runner is asked with. They are blocked when it starts, until it can answer.
RUNNER_SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR1)
