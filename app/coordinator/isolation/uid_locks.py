"""Locks on job user ids, one for each id of the machine.

Whoever kills all processes of a user id holds its lock: so no coordinator kills
another one's job, though both draw from the same range. A coordinator takes
the lock with the id and passes it on to the runner, which passes it on to the
first process of its sandbox. The kernel frees it when the last of them is gone.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

#: In it is a file for each id. What is there goes when the machine stops.
DIRECTORY: Final = Path("/run/scaimind/job-uids")


@dataclass(frozen=True, slots=True)
class UidLock:
    """An id that is held. A context manager; the holder closes it."""

    #: The descriptor that holds it; None where this machine has no place for locks.
    file: int | None

    def __enter__(self) -> Self:
        """Nothing more to hold."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of it."""
        self.close()

    def close(self) -> None:
        """Let go of it. Others that it was passed on to still hold it."""
        if self.file is not None:
            os.close(self.file)

    @property
    def files(self) -> tuple[int, ...]:
        """What a process has to inherit that is to hold it, too."""
        return () if self.file is None else (self.file,)


def hold(uid: int, directory: Path | None = None) -> UidLock | None:
    """Lock an id; None if somebody else holds it.

    Where DIRECTORY cannot be used, as in a container whose files are read-only, nothing is
    locked: nobody else is there.
    """
    path = (directory or DIRECTORY) / str(uid)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return UidLock(None)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return UidLock(file)
