"""Whose fault a failure is, and how long to wait before something is tried again.

A job's task tells three classes of failure apart:

- Of what only looks at a job: that part pauses, and the job goes on (`observing`).
- Of what the job cannot go on without: the job is FAILED (`job_tasks`).
- Of the machine, such as a full disk or too many open files: nobody's fault. It changes no job,
  and is tried again until it works or the job is no longer wanted.
"""

import errno
import random
import sqlite3
from typing import Final

#: Seconds.
_SHORTEST: Final = 0.25
_LONGEST: Final = 5.0

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_PASSING: Final = _DISK_FULL | {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOBUFS,
    # No process or thread can be started.
    errno.EAGAIN,
}


class CoordinatorStops(Exception):
    """What was being done is left as it is; the next coordinator takes it up again."""


def is_passing(error: BaseException) -> bool:
    """Whether the machine failed, not the job: the same may work in a moment."""
    if isinstance(error, OSError):
        return error.errno in _PASSING
    if isinstance(error, RuntimeError):
        # CPython has no type of its own for it.
        return str(error) == "can't start new thread"
    # A locked, full or unreadable database. Its other errors are about what is stored.
    return isinstance(error, MemoryError | sqlite3.OperationalError)


def is_disk_full(error: BaseException) -> bool:
    """Whether a file system, or somebody's share of it, is full."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL


def reason_of(error: BaseException) -> str:
    """A failure in words for the job's owner: without paths, and without internals."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if is_passing(error):
        return str(error) or "out of memory"
    return f"an internal error, {type(error).__name__}; the operators' log has the details"


class Backoff:
    """Waits between tries: each twice as long as the one before, up to some seconds."""

    def __init__(self, *, longest: float = _LONGEST) -> None:
        self._longest = longest
        self._seconds = _SHORTEST
        #: How many tries have failed.
        self.failures = 0

    def after_failure(self) -> float:
        """Count a failure. Returns the seconds to wait, spread so that not all try at once."""
        self.failures += 1
        seconds = self._seconds
        self._seconds = min(2 * seconds, self._longest)
        return seconds * random.uniform(0.75, 1.0)

    @property
    def worth_a_line(self) -> bool:
        """Whether the newest failure is to be logged: the 1st, 2nd, 4th, 8th and so on."""
        return self.failures & (self.failures - 1) == 0
