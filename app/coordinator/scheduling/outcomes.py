"""What becomes of a job when its run has ended."""

from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.job_changes import (
    end_job,
    export_job,
    fail_job,
    fail_or_retry,
    requeue_job,
)
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.transitions import RunEnd


def apply_run_result(table: JobTable, job: JobRecord, end: RunEnd) -> None:
    """Move a job whose run has ended to its next state."""
    stop_reason = job.stop_reason
    finished = end.exit_code == 0 and not end.stopped and not end.failure
    if stop_reason is StopReason.CANCEL:
        end_job(table, job, Status.CANCELLED, job.stop_message)
    elif end.failure and not end.transient:
        fail_job(table, job, end.failure)
    elif finished:
        export_job(table, job)
    elif stop_reason in (StopReason.PAUSE, StopReason.PAUSE_NOW):
        table.transition(job, Status.PAUSED, "Paused by request.", stop_reason=StopReason.NONE)
    elif stop_reason is StopReason.PREEMPT:
        end_job(table, job, Status.PREEMPTED, job.stop_message)
    elif stop_reason is StopReason.REQUEUE:
        requeue_job(table, job, "Will resume when the coordinator restarts.")
    elif stop_reason is StopReason.TIMEOUT:
        fail_job(table, job, job.stop_message)
    elif stop_reason in (StopReason.EVICT, StopReason.MEMORY):
        fail_or_retry(table, job, job.stop_message)
    elif end.transient:
        fail_or_retry(table, job, end.failure)
    elif end.interruption:
        fail_or_retry(table, job, end.interruption)
    elif end.exit_code == 0:
        # Somebody other than the coordinator told it to exit.
        export_job(table, job)
    else:
        reason = f"The training process exited with status {end.exit_code}."
        if end.last_words:
            reason += f" Last line of stderr: {end.last_words}"
        fail_job(table, job, reason)
