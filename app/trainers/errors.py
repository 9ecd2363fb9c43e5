"""What ends a training run with a message for people, and the statuses it exits with."""

import difflib
import errno
import os
from collections.abc import Iterable
from typing import Final

#: Of the run that did what was asked, or that was asked to leave and saved a checkpoint.
OK: Final = 0
#: Of a run that began and failed: training it again as it is fails again.
FAILED: Final = 1
#: Of a run that was not begun: its configuration or its data are wrong.
REFUSED: Final = 2

#: What libraries in other languages say where memory is short, in lower case: CUDA, torch, the
#: system, C++, Arrow.
_NO_MEMORY: Final = (
    "out of memory",
    "defaultcpuallocator",
    os.strerror(errno.ENOMEM).lower(),
    "bad_alloc",
    "malloc of size",
)
#: Characters of a name that a message repeats.
_SHOWN: Final = 80
#: Names that a message lists.
_LISTED: Final = 20


class TrainingError(Exception):
    """The run ends; the text says what is wrong, where, and what to do."""

    status: int = FAILED


class TrainingRefused(TrainingError):
    """The job's configuration, data or model cannot be trained with."""

    status = REFUSED


class TrainingFailed(TrainingError):
    """Training began and cannot go on."""


class StopRequested(BaseException):
    """The process was asked to leave (SIGTERM) while there is nothing to save.

    Derived from BaseException, since libraries catch Exception.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library's error, or what led to it, says that memory is short, of the machine or
    of a GPU."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        said = str(cause).lower()
        if isinstance(cause, MemoryError) or any(each in said for each in _NO_MEMORY):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


def shown(text: str) -> str:
    """Return a text from outside as a message repeats it: quoted, printable and short."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def listed(names: Iterable[str]) -> str:
    """Return names as a message lists them, the first of many."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(name[:_SHOWN] for name in names[:_LISTED]) + more


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest of the known names; empty if none is close."""
    if not given or len(given) > _SHOWN:
        return ""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[close[0]]!r}?" if close else ""
