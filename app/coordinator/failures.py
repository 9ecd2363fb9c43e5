"""Whose fault a failure is, and how long to wait before something is tried again.

A job's task tells three classes of failure apart:

- Of what only looks at a job: that part pauses, and the job goes on (`observing`).
- Of what the job cannot go on without: the job is FAILED (`job_tasks`).
- Of the machine, such as a full disk or too many open files: nobody's fault. It changes no job,
  and is tried again until it works or the job is no longer wanted.
"""

import errno
import sqlite3
from typing import Final

from typing_extensions import override

from app.tasks.backoff import Backoff

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


class LeadershipLost(CoordinatorStops):
    """Another coordinator leads, or may by now: this one must change nothing more."""


class StoreUnavailable(Exception):
    """The database does not answer, or has refused for now; nothing was changed."""


def is_passing(error: BaseException) -> bool:
    """Whether the machine failed, not the job: the same may work in a moment."""
    if isinstance(error, OSError):
        return error.errno in _PASSING
    if isinstance(error, RuntimeError):
        # CPython has no type of its own for it.
        return str(error) == "can't start new thread"
    # A locked, full or unreadable database. Its other errors are about what is stored.
    return isinstance(error, MemoryError | sqlite3.OperationalError | StoreUnavailable)


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


class FailureBackoff(Backoff):
    """A backoff that also counts the failures in a row."""

    def __init__(self, *, longest: float = _LONGEST) -> None:
        super().__init__(shortest=_SHORTEST, longest=longest, jitter=0.25)
        #: How many tries have failed.
        self.failures = 0

    def after_failure(self) -> float:
        """Count a failure. Returns the seconds to wait, spread so that not all try at once."""
        self.failures += 1
        return self.pause()

    @override
    def reset(self) -> None:
        super().reset()
        self.failures = 0

    @property
    def worth_a_line(self) -> bool:
        """Whether the newest failure is to be logged: the 1st, 2nd, 4th, 8th and so on."""
        return self.failures & (self.failures - 1) == 0
