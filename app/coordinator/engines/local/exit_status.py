"""What an exit status says about who ended a process."""

import signal
from typing import Final

#: Signals whose end of a program is nothing that the program decided.
_FROM_OUTSIDE: Final = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGKILL,
        signal.SIGSEGV,
        signal.SIGTERM,
        signal.SIGXCPU,
        signal.SIGXFSZ,
        signal.SIGSYS,
    }
)
#: A shell's status of a program that a signal ended is this and the signal's number (POSIX 2.8.2).
_SHELL_SIGNAL: Final = 128


def interruption_of(status: int | None) -> str:
    """Return which signal ended a process, in a sentence; empty if it exited by itself.

    `status` is the exit status, minus the signal's number if a signal ended
    the process, or None if it is unknown.
    """
    if status is None:
        return ""
    if status < 0:
        name = signal.strsignal(-status)
        return f"The training process was ended by signal {-status} ({name})."
    number = status - _SHELL_SIGNAL
    if number not in _FROM_OUTSIDE:
        return ""
    return (
        f"The training process exited with status {status}, which is how a shell reports that"
        f" signal {number} ({signal.strsignal(number)}) ended what it ran."
    )
