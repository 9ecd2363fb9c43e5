"""What would become of a job that is submitted now: the scheduler does it, and undoes it."""

from dataclasses import dataclass

from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.states import WAITING
from app.coordinator.scheduling.reasons import JobsReason
from app.coordinator.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A job as it would be right after its submission."""

    job: JobRecord
    #: Why it would wait; None if it would not.
    reason: JobsReason | None
    #: Jobs of all tenants before it in the queue; 0 if it does not wait.
    ahead: int
    #: Jobs that would be stopped to make room for it.
    preempted: int
    #: Seconds until it would start; 0 if it does not wait.
    wait: int

    @property
    def starts(self) -> bool:
        """Whether it would start at once."""
        return self.job.status not in WAITING


class _Undone(Exception):
    """Has the scheduler undo everything."""


def rehearse(scheduler: Scheduler, job: JobRecord) -> Rehearsal:
    """Submit a job, look, and undo it: nothing is stored or told, and nothing is started."""
    rehearsal: Rehearsal | None = None
    try:
        with scheduler.changing() as transition:
            scheduler.submit(job)
            rehearsal = _seen(
                scheduler,
                transition.newest()[job.job_id],
                preempted=sum(
                    after.stop_reason is StopReason.PREEMPT
                    for job_id, after in transition.newest().items()
                    if (before := transition.before[job_id]) is not None
                    and before.stop_reason is not StopReason.PREEMPT
                ),
            )
            raise _Undone
    except _Undone:
        assert rehearsal is not None
        return rehearsal


def _seen(scheduler: Scheduler, job: JobRecord, *, preempted: int) -> Rehearsal:
    if job.status not in WAITING:
        return Rehearsal(job, reason=None, ahead=0, preempted=preempted, wait=0)
    return Rehearsal(
        job,
        reason=scheduler.reasons().of(job),
        ahead=scheduler.waiting.rank(scheduler.waiting.place_of(job)),
        preempted=preempted,
        wait=scheduler.wait_of(job, scheduler.forecast()),
    )
