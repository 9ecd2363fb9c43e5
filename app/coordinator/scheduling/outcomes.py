"""What becomes of a job when its run is over."""

from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.transitions import RunEnd


def apply_run_result(table: JobTable, job: JobRecord, end: RunEnd) -> None:
    """Move a job whose run is over to where it belongs."""
    stop_reason = job.stop_reason
    finished = end.exit_code == 0 and not end.stopped and not end.failure
    if stop_reason is StopReason.CANCEL:
        table.end(job, Status.CANCELLED, job.stop_message)
    elif end.failure and not end.transient:
        table.fail(job, end.failure)
    elif finished:
        table.export(job)
    elif stop_reason in (StopReason.PAUSE, StopReason.PAUSE_NOW):
        table.move(job, Status.PAUSED, "Paused by request.", stop_reason=StopReason.NONE)
    elif stop_reason is StopReason.PREEMPT:
        table.end(job, Status.PREEMPTED, job.stop_message)
    elif stop_reason is StopReason.REQUEUE:
        table.queue_again(job, "Goes on when the coordinator is back.")
    elif stop_reason is StopReason.TIMEOUT:
        table.fail(job, job.stop_message)
    elif stop_reason in (StopReason.EVICT, StopReason.MEMORY):
        table.fail_or_retry(job, job.stop_message)
    elif end.transient:
        table.fail_or_retry(job, end.failure)
    elif end.interruption:
        table.fail_or_retry(job, end.interruption)
    elif end.exit_code == 0:
        # It left because somebody else told it to.
        table.export(job)
    else:
        reason = f"The training process exited with status {end.exit_code}."
        if end.last_words:
            reason += f" Its last line on stderr: {end.last_words}"
        table.fail(job, reason)
