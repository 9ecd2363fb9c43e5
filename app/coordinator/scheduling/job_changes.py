"""How jobs change together with what is to be done about it.

Each is made of the job table's `transition` and `instruct`.
"""

from typing import Any, Final

from app.coordinator.jobs.model import (
    Checkpoint,
    JobRecord,
    Progress,
    StopReason,
    checkpoint_url,
)
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.transitions import Export, Stop

#: The message of a job whose run is being stopped, by the reason.
STOPPING: Final = {
    StopReason.PAUSE: "Saving a checkpoint before the pause.",
    StopReason.PAUSE_NOW: "Pausing.",
    StopReason.PREEMPT: "Saving a checkpoint; a job with a higher priority needs its resources.",
    StopReason.REQUEUE: "Saving a checkpoint; the coordinator is shutting down.",
    StopReason.EVICT: "Saving a checkpoint; its node is being drained.",
    StopReason.TIMEOUT: "Saving a checkpoint; it reached max_runtime_seconds.",
    StopReason.MEMORY: "Ending; the machine is short of memory.",
    StopReason.CANCEL: "Cancelling.",
}
#: What is to be done about an export that has failed.
EXPORTED_BY_RETRY: Final = (
    "Retry the job to export its artefacts again without another run. A retry with a"
    " checkpoint_id or other resources runs it again."
)
_STALLED: Final = " No step for "
#: A run that is stopped for one of these is not asked first.
AT_ONCE: Final = frozenset({StopReason.PAUSE_NOW, StopReason.MEMORY})


def queue_job(table: JobTable, job: JobRecord, message: str) -> None:
    """Have the job wait for its turn."""
    table.transition(
        job,
        Status.QUEUED,
        message,
        queued_at=table.stamp(job),
        stop_reason=StopReason.NONE,
        stop_message="",
        exit_code=None,
    )


def requeue_job(table: JobTable, job: JobRecord, message: str) -> None:
    """Queue a job whose run did not finish; it resumes from its newest checkpoint."""
    if job.checkpoints:
        job = table.transition(job, resume_from=checkpoint_url(job, job.checkpoints[-1]))
    queue_job(table, job, message)


def run_message(job: JobRecord, run: int) -> str:
    """Return the message of a job whose run goes on."""
    return f"Run {run} on {', '.join(job.node_ids)}."


def record_report(
    table: JobTable,
    job: JobRecord,
    *,
    progress: Progress | None,
    checkpoints: tuple[Checkpoint, ...] | None,
    stalled: float | None,
) -> None:
    """Record what a run reported by itself; None of what was not looked at.

    `stalled` are the seconds without a step that it complains of, 0 if it does not: the job's
    message says so as long as nothing else is to be said.
    """
    changes: dict[str, Any] = {}
    if progress is not None and progress != job.progress:
        changes["progress"] = progress
    if checkpoints is not None and checkpoints != job.checkpoints:
        changes["checkpoints"] = checkpoints
        changes["checkpoint_count"] = len(checkpoints)
    if stalled is not None and job.status is Status.TRAINING and not job.stop_reason:
        if stalled:
            step = (progress or job.progress).step
            changes["message"] = (
                f"{run_message(job, job.run_count)}{_STALLED}{stalled:.0f} s after step {step}; it"
                " may hang. The stacks of its threads are in its log."
            )
        elif _STALLED in job.message:
            changes["message"] = run_message(job, job.run_count)
    if changes.get("message") == job.message:
        del changes["message"]
    if changes:
        table.transition(job, **changes)


def end_job(table: JobTable, job: JobRecord, status: Status, message: str) -> None:
    """End the job in a terminal state."""
    table.transition(job, status, message, stop_reason=StopReason.NONE, stop_message="")


def fail_job(table: JobTable, job: JobRecord, reason: str, message: str = "Failed.") -> None:
    """End the job as FAILED. What was to be exported then waits for a retry."""
    if job.status is Status.EXPORTING:
        reason = f"{reason.rstrip('.')}. {EXPORTED_BY_RETRY}"
        job = table.transition(job, artefacts_of=job.artefacts_of or job.job_id)
    table.transition(
        job,
        Status.FAILED,
        message,
        error_message=reason,
        stop_reason=StopReason.NONE,
        stop_message="",
    )


def cancel_or_fail(table: JobTable, job: JobRecord, reason: str) -> None:
    """End the job as CANCELLED if that was asked for, else as FAILED."""
    if job.stop_reason is StopReason.CANCEL:
        end_job(table, job, Status.CANCELLED, job.stop_message)
    else:
        fail_job(table, job, reason)


def fail_or_retry(table: JobTable, job: JobRecord, reason: str) -> None:
    """Run the job again after a transient failure, as often as it allows."""
    allowed = job.submission.training_config.max_retries
    if job.retry_count >= allowed:
        fail_job(table, job, reason)
        return
    count = job.retry_count + 1
    job = table.transition(job, retry_count=count)
    requeue_job(table, job, f"Retry {count} of {allowed}: {reason}")


def comes_back(job: JobRecord) -> bool:
    """Whether a job whose run is being stopped will be queued again."""
    if job.stop_reason in (StopReason.EVICT, StopReason.MEMORY):
        return job.retry_count < job.submission.training_config.max_retries
    return job.stop_reason is StopReason.REQUEUE


def is_ending(job: JobRecord) -> bool:
    """Whether a job that holds resources is about to give them back."""
    return job.stop_reason is not StopReason.NONE or job.status is Status.EXPORTING


def export_job(table: JobTable, job: JobRecord) -> None:
    """Export what the job's run has made."""
    job = table.transition(job, Status.EXPORTING, "Exporting its artefacts.")
    table.instruct(Export(job))


def stop_run(table: JobTable, job: JobRecord, stop_reason: StopReason, reason: str) -> None:
    """Begin to stop the job's run. What becomes of the job is decided when the run has ended."""
    at_once = stop_reason in AT_ONCE
    saves = not at_once and stop_reason is not StopReason.CANCEL
    checkpointing = saves and job.status is Status.TRAINING
    changes: dict[str, Any] = {"stop_reason": stop_reason, "stop_message": reason}
    status = Status.CHECKPOINTING if checkpointing else job.status
    job = table.transition(job, status, STOPPING[stop_reason], **changes)
    table.instruct(Stop(job, at_once))
