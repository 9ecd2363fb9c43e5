"""What the coordinator decides about jobs by itself, for the audit trail.

What callers ask for is not here: the gateway writes that, and knows who asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.states import HOLDING, Status
from app.coordinator.scheduling.transitions import Transition
from app.telemetry.audit import Action, Actor, Identity, Target, record

_STOPS: Final = {
    StopReason.PREEMPT: Action.JOB_PREEMPT,
    StopReason.EVICT: Action.JOB_EVICT,
    StopReason.TIMEOUT: Action.JOB_TIME_OUT,
    StopReason.MEMORY: Action.JOB_END_FOR_MEMORY,
    StopReason.REQUEUE: Action.JOB_REQUEUE,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision about a job."""

    action: Action
    job: JobRecord
    #: Of a failure or a recovery: what was being done. The job's own text may hold anything.
    during: str | None = None

    def write(self) -> None:
        """Write it to the audit trail."""
        job = self.job
        record(
            self.action,
            by=Identity(Actor.COORDINATOR),
            on=Target("job", job.job_id, job.tenant_id),
            during=self.during,
            exit_code=job.exit_code if self.action is Action.JOB_FAIL else None,
            retry_count=job.retry_count if self.action is Action.JOB_RESTART else None,
        )


def decisions_in(transition: Transition) -> Iterator[Decision]:
    """Find the decisions in what has been stored, in the order in which they were made."""
    newest = dict(transition.before)
    for job in transition.changed:
        before, newest[job.job_id] = newest.get(job.job_id), job
        if before is None:
            continue
        if job.stop_reason is not before.stop_reason and job.stop_reason in _STOPS:
            yield Decision(_STOPS[job.stop_reason], job)
        if job.status is Status.FAILED:
            yield Decision(Action.JOB_FAIL, job, during=before.status.name)
        elif job.status is Status.QUEUED and before.status in HOLDING:
            first = transition.before[job.job_id]
            if first is not None and job.retry_count > first.retry_count:
                yield Decision(Action.JOB_RESTART, job)
            elif before.stop_reason is not StopReason.REQUEUE:
                # It had not begun: its node is drained, or the coordinator stops.
                yield Decision(Action.JOB_REQUEUE, job)


def recovered(job: JobRecord) -> Decision:
    """A job that held resources when the coordinator started: the one before had not stopped it."""
    return Decision(Action.JOB_RECOVER, job, during=job.status.name)
