"""The jobs that have not ended, and every way in which one of them changes.

What is changed is gathered into a `Transition`, until it is taken.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord, StopReason, checkpoint_url
from app.coordinator.jobs.states import HOLDING, TERMINAL, Status, check_move
from app.coordinator.jobs.times import creation_time
from app.coordinator.scheduling.transitions import Export, Stop, Transition

#: What a run is told to do, by why it is being stopped.
LEAVING: Final = {
    StopReason.PAUSE: "Saving a checkpoint before it is paused.",
    StopReason.PAUSE_NOW: "Being paused.",
    StopReason.PREEMPT: "Saving a checkpoint before it gives way to a job of higher priority.",
    StopReason.REQUEUE: "Saving a checkpoint: the coordinator stops.",
    StopReason.EVICT: "Saving a checkpoint: its node is being drained.",
    StopReason.TIMEOUT: "Saving a checkpoint: it has run for as long as it may.",
    StopReason.MEMORY: "Being ended: the machine is short of memory.",
    StopReason.CANCEL: "Being cancelled.",
}
#: What is to be done about an export that has failed.
EXPORTED_BY_RETRY: Final = (
    "Retry the job to export its artefacts again, without another run; a retry with a"
    " checkpoint_id or other resources runs it again."
)
#: A run that is stopped for one of these is not asked first.
AT_ONCE: Final = frozenset({StopReason.PAUSE_NOW, StopReason.MEMORY})


class JobTable:
    """The jobs with the resources that they hold; the only place where a job's state changes."""

    def __init__(
        self, *, cluster: Cluster, clock: Callable[[], int], newest_creation: int = 0
    ) -> None:
        """`newest_creation` is when the newest job was made, of those that have ended, too."""
        self.cluster = cluster
        self._newest_creation = newest_creation
        self.jobs: dict[str, JobRecord] = {}
        self.now = clock
        self.transition = Transition()

    def take_transition(self) -> Transition:
        """What has changed since the last call."""
        transition, self.transition = self.transition, Transition()
        return transition

    def restore(self, jobs: Iterable[JobRecord]) -> dict[str, ValueError]:
        """Take up what was stored. Returns why jobs do not have their resources, by id: those must
        end."""
        problems = {}
        for job in jobs:
            if job.status in HOLDING:
                try:
                    self.cluster.allocate(job.job_id, job.placement)
                except ValueError as error:
                    problems[job.job_id] = error
                    job = replace(job, placement=())
            self.jobs[job.job_id] = job
        return problems

    def revert(self, transition: Transition) -> None:
        """Undo the newest step, which could not be stored; its instructions are void."""
        for job_id, job in transition.before.items():
            if job is None:
                self.jobs.pop(job_id, None)
            else:
                self.jobs[job_id] = job
        for node_id, drain in transition.drained.items():
            self.cluster.nodes[node_id].drain = drain
        self.cluster.release_all()
        for job in self.jobs.values():
            if job.status in HOLDING:
                self.cluster.allocate(job.job_id, job.placement)

    def add(self, job: JobRecord) -> JobRecord:
        """A job that is new. Returns it as made after all others."""
        created = creation_time(job.created_at, self._newest_creation)
        job = replace(job, created_at=created, updated_at=max(job.updated_at, created))
        self._newest_creation = created
        self.jobs[job.job_id] = job
        self.transition.before[job.job_id] = None
        self.transition.changed.append(job)
        return job

    def stamp(self, job: JobRecord) -> int:
        """This moment, as a time of a job's: they never go back, though the clock may."""
        return max(self.now(), job.updated_at)

    def change(self, job: JobRecord, **changes: Any) -> JobRecord:
        """The job's next version, in the same state."""
        self.transition.before.setdefault(job.job_id, job)
        job = replace(job, updated_at=self.stamp(job), revision=job.revision + 1, **changes)
        self.jobs[job.job_id] = job
        self.transition.changed.append(job)
        return job

    def move(self, job: JobRecord, status: Status, message: str, **changes: Any) -> JobRecord:
        """The job's next version, in another state. Raises IllegalMove."""
        check_move(job.status, status)
        if job.status in HOLDING and status not in HOLDING:
            self.cluster.release(job.job_id, job.placement)
            changes["placement"] = ()
        if status in TERMINAL:
            changes["ended_at"] = self.stamp(job)
        job = self.change(job, status=status, message=message, **changes)
        if status in TERMINAL:
            del self.jobs[job.job_id]
        return job

    def queue(self, job: JobRecord, message: str) -> None:
        """The job waits for its turn."""
        self.move(
            job,
            Status.QUEUED,
            message,
            queued_at=self.stamp(job),
            stop_reason=StopReason.NONE,
            stop_message="",
            exit_code=None,
        )

    def queue_again(self, job: JobRecord, message: str) -> None:
        """Queue a job whose run was broken off; it goes on from its newest checkpoint."""
        if job.checkpoints:
            job = self.change(job, resume_from=checkpoint_url(job, job.checkpoints[-1]))
        self.queue(job, message)

    def end(self, job: JobRecord, status: Status, message: str) -> None:
        """The job has ended."""
        self.move(job, status, message, stop_reason=StopReason.NONE, stop_message="")

    def fail(self, job: JobRecord, reason: str, message: str = "Failed.") -> None:
        """The job has failed. What was to be exported then waits for a retry."""
        if job.status is Status.EXPORTING:
            reason = f"{reason.rstrip('.')}. {EXPORTED_BY_RETRY}"
            job = self.change(job, artefacts_of=job.artefacts_of or job.job_id)
        self.move(
            job,
            Status.FAILED,
            message,
            error_message=reason,
            stop_reason=StopReason.NONE,
            stop_message="",
        )

    def fail_or_retry(self, job: JobRecord, reason: str) -> None:
        """The job's run has failed for a transient reason."""
        allowed = job.submission.training_config.max_retries
        if job.retry_count >= allowed:
            self.fail(job, reason)
            return
        count = job.retry_count + 1
        job = self.change(job, retry_count=count)
        self.queue_again(job, f"Retry {count} of {allowed}: {reason}")

    def export(self, job: JobRecord) -> None:
        """The job's process has done its work."""
        job = self.move(job, Status.EXPORTING, "Writing artefacts to their destination.")
        self.transition.instructions.append(Export(job))

    def stop(self, job: JobRecord, stop_reason: StopReason, reason: str) -> None:
        """Begin to stop a run; `outcomes` decides by the intent what becomes of the job."""
        at_once = stop_reason in AT_ONCE
        saves = not at_once and stop_reason is not StopReason.CANCEL
        changes: dict[str, Any] = {"stop_reason": stop_reason, "stop_message": reason}
        if saves and job.status is Status.TRAINING:
            job = self.move(job, Status.CHECKPOINTING, LEAVING[stop_reason], **changes)
        else:
            job = self.change(job, message=LEAVING[stop_reason], **changes)
        self.transition.instructions.append(Stop(job, at_once))

    def validate(self) -> None:
        """Raise AssertionError unless what is taken is what the jobs hold."""
        self.cluster.validate()
        held: dict[str, set[str]] = {node_id: set() for node_id in self.cluster.nodes}
        for job in self.jobs.values():
            assert job.status not in TERMINAL, job
            assert bool(job.placement) == (job.status in HOLDING), job
            for allocation in job.placement:
                if allocation.node_id in held:
                    held[allocation.node_id].add(job.job_id)
        for node in self.cluster.nodes.values():
            assert node.job_ids == held[node.spec.node_id], node
            allocations = [
                allocation
                for job_id in node.job_ids
                for allocation in self.jobs[job_id].placement
                if allocation.node_id == node.spec.node_id
            ]
            assert node.taken_cpus == sum(allocation.cpus for allocation in allocations), node
            assert node.taken_memory == sum(allocation.memory for allocation in allocations), node
            assert sorted(node.taken_gpus) == sorted(
                index for allocation in allocations for index in allocation.gpus
            ), node
