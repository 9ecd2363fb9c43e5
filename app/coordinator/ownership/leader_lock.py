"""A lock by which others see that a leader's process has ended, before its lease has run out.

The leader keeps a file of its term in the data directory locked until its process
ends, however it does: the kernel lets go of the lock behind everything else that the
process has written. Whoever has found that file locked and then does not takes it
that nothing of the process is left to act. Whoever has never found it locked knows nothing:
a file system may keep locks to each machine, or have none. The lease decides then.

A file server that takes the locks away from a machine that it no longer hears looks
the same. A leader that lives there all the same reaches none of its files; the
database refuses its term from the take-over on, and it ends at its next renewal.
"""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

_BEGINNING: Final = "leader-"
_END: Final = ".lock"

log = structlog.get_logger("scaimind.coordinator")


def _path(folder: Path, term: int) -> Path:
    return folder / f"{_BEGINNING}{term}{_END}"


class LeaderLock:
    """The leader's own. Blocks shortly."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the data directory."""
        self._folder = folder
        self._file: int | None = None

    def hold(self, term: int) -> None:
        """Lock the file of this term until `close` or the process's end, and remove those of
        others. Where that cannot be done, the lead lasts as long as its lease."""
        path = _path(self._folder, term)
        fresh = path.with_suffix(".new")
        try:
            # A child that is just being started has it, too, until it is another program.
            file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Nobody finds it by its name before it is locked.
                os.rename(fresh, path)
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            log.warning("leader_not_locked", term=term, reason=error.strerror)
            return
        self._file = file
        for other in self._folder.glob(f"{_BEGINNING}*"):
            if other != path:
                with suppress(OSError):
                    other.unlink()

    def close(self) -> None:
        """Let go of it; once more does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class LeaderWatch:
    """Another coordinator's look at it. Blocks shortly."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._term = 0
        self._file: int | None = None
        #: The file was found locked.
        self._was_locked = False

    def has_ended(self, term: int) -> bool:
        """Whether the process that led for a term has ended. False where that is not known."""
        if term != self._term:
            self.close()
            self._term, self._was_locked = term, False
        try:
            if self._file is None:
                self._file = os.open(_path(self._folder, term), os.O_RDONLY | os.O_CLOEXEC)
            # Shared: others who look are not in the way.
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            self._was_locked |= error.errno == errno.EWOULDBLOCK
            return False
        return self._was_locked

    def close(self) -> None:
        """Look no longer."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
