"""What becomes of a job when its run is over."""

import signal
from typing import Final

from app.coordinator.jobs.model import Intent, JobRecord
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.job_table import Moves
from app.coordinator.scheduling.steps import RunEnd

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


def settle_run(moves: Moves, job: JobRecord, end: RunEnd) -> None:
    """Move a job whose run is over to where it belongs."""
    intent = job.intent
    finished = end.exit_code == 0 and not end.stopped and not end.failure
    if intent is Intent.CANCEL:
        moves.end(job, Status.CANCELLED, job.intent_reason)
    elif end.failure and not end.transient:
        moves.fail(job, end.failure)
    elif finished:
        moves.export(job)
    elif intent in (Intent.PAUSE, Intent.PAUSE_NOW):
        moves.move(job, Status.PAUSED, "Paused by request.", intent=Intent.NONE)
    elif intent is Intent.PREEMPT:
        moves.end(job, Status.PREEMPTED, job.intent_reason)
    elif intent is Intent.REQUEUE:
        moves.queue_again(job, "Goes on when the coordinator is back.")
    elif intent is Intent.TIMEOUT:
        moves.fail(job, job.intent_reason)
    elif intent in (Intent.EVICT, Intent.MEMORY):
        moves.fail_or_retry(job, job.intent_reason)
    elif end.transient:
        moves.fail_or_retry(job, end.failure)
    elif signalled := _signal_of(end):
        moves.fail_or_retry(job, signalled)
    elif end.exit_code == 0:
        # It left because somebody else told it to.
        moves.export(job)
    else:
        reason = f"The training process left with status {end.exit_code}."
        if end.last_words:
            reason += f" Its last line on stderr: {end.last_words}"
        moves.fail(job, reason)


def _signal_of(end: RunEnd) -> str:
    """By which signal a run was ended, in a sentence; empty if it exited by itself."""
    code = end.exit_code
    if code is None:
        return ""
    if code < 0:
        name = signal.strsignal(-code)
        return f"The training process was ended by signal {-code} ({name})."
    number = code - _SHELL_SIGNAL
    if number not in _FROM_OUTSIDE:
        return ""
    return (
        f"The training process left with status {code}, which is how a shell reports that signal"
        f" {number} ({signal.strsignal(number)}) ended what it ran."
    )
