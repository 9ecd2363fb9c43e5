"""What becomes of a job when its run is over."""

import signal

from .moves import Moves
from .records import Intent, JobRecord
from .states import Status
from .steps import RunEnd


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
    elif end.exit_code is not None and end.exit_code < 0:
        number = -end.exit_code
        name = signal.strsignal(number)
        moves.fail_or_retry(job, f"The training process was ended by signal {number} ({name}).")
    elif end.exit_code == 0:
        # It left because somebody else told it to.
        moves.export(job)
    else:
        reason = f"The training process left with status {end.exit_code}."
        if end.last_words:
            reason += f" Its last line on stderr: {end.last_words}"
        moves.fail(job, reason)
