"""The jobs that have not ended, and every way in which one of them changes.

What is changed is gathered into a `Step`, until it is taken.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import Intent, JobRecord, checkpoint_url
from app.coordinator.jobs.states import HOLDING, TERMINAL, Status, check_move
from app.coordinator.scheduling.steps import Export, Step, Stop

#: What a run is told to do, by why it is being stopped.
LEAVING: Final = {
    Intent.PAUSE: "Saving a checkpoint before it is paused.",
    Intent.PAUSE_NOW: "Being paused.",
    Intent.PREEMPT: "Saving a checkpoint before it gives way to a job of higher priority.",
    Intent.REQUEUE: "Saving a checkpoint: the coordinator stops.",
    Intent.EVICT: "Saving a checkpoint: its node is being drained.",
    Intent.TIMEOUT: "Saving a checkpoint: it has run for as long as it may.",
    Intent.MEMORY: "Being ended: the machine is short of memory.",
    Intent.CANCEL: "Being cancelled.",
}
#: What is to be done about an export that has failed.
EXPORTED_BY_RETRY: Final = (
    "Retry the job to export its artefacts again, without another run; a retry with a"
    " checkpoint_id or other resources runs it again."
)
#: A run that is stopped for one of these is not asked first.
AT_ONCE: Final = frozenset({Intent.PAUSE_NOW, Intent.MEMORY})


class Moves:
    """The jobs with the resources that they hold; the only place where a job's state changes."""

    def __init__(self, *, cluster: Cluster, clock: Callable[[], int]) -> None:
        self.cluster = cluster
        self.jobs: dict[str, JobRecord] = {}
        self.now = clock
        self.step = Step()

    def take_step(self) -> Step:
        """What has changed since the last call."""
        step, self.step = self.step, Step()
        return step

    def restore(self, jobs: Iterable[JobRecord]) -> dict[str, ValueError]:
        """Take up what was stored. Returns why jobs do not have their resources, by id: those must
        end."""
        problems = {}
        for job in jobs:
            if job.status in HOLDING:
                try:
                    self.cluster.take(job.job_id, job.placement)
                except ValueError as error:
                    problems[job.job_id] = error
                    job = replace(job, placement=())
            self.jobs[job.job_id] = job
        return problems

    def revert(self, step: Step) -> None:
        """Undo the newest step, which could not be stored; its instructions are void."""
        for job_id, job in step.before.items():
            if job is None:
                self.jobs.pop(job_id, None)
            else:
                self.jobs[job_id] = job
        for node_id, drain in step.drained.items():
            self.cluster.nodes[node_id].drain = drain
        self.cluster.release_all()
        for job in self.jobs.values():
            if job.status in HOLDING:
                self.cluster.take(job.job_id, job.placement)

    def add(self, job: JobRecord) -> None:
        """A job that is new."""
        self.jobs[job.job_id] = job
        self.step.before[job.job_id] = None
        self.step.changed.append(job)

    def change(self, job: JobRecord, **changes: Any) -> JobRecord:
        """The job's next version, in the same state."""
        self.step.before.setdefault(job.job_id, job)
        job = replace(job, updated_at=self.now(), revision=job.revision + 1, **changes)
        self.jobs[job.job_id] = job
        self.step.changed.append(job)
        return job

    def move(self, job: JobRecord, status: Status, message: str, **changes: Any) -> JobRecord:
        """The job's next version, in another state. Raises IllegalMove."""
        check_move(job.status, status)
        if job.status in HOLDING and status not in HOLDING:
            self.cluster.give_back(job.job_id, job.placement)
            changes["placement"] = ()
        if status in TERMINAL:
            changes["ended_at"] = self.now()
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
            queued_at=self.now(),
            intent=Intent.NONE,
            intent_reason="",
            exit_code=None,
        )

    def queue_again(self, job: JobRecord, message: str) -> None:
        """Queue a job whose run was broken off; it goes on from its newest checkpoint."""
        if job.checkpoints:
            job = self.change(job, resume_from=checkpoint_url(job, job.checkpoints[-1]))
        self.queue(job, message)

    def end(self, job: JobRecord, status: Status, message: str) -> None:
        """The job has ended."""
        self.move(job, status, message, intent=Intent.NONE, intent_reason="")

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
            intent=Intent.NONE,
            intent_reason="",
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
        self.step.instructions.append(Export(job))

    def stop(self, job: JobRecord, intent: Intent, reason: str) -> None:
        """Begin to stop a run; `outcomes` decides by the intent what becomes of the job."""
        at_once = intent in AT_ONCE
        saves = not at_once and intent is not Intent.CANCEL
        changes: dict[str, Any] = {"intent": intent, "intent_reason": reason}
        if saves and job.status is Status.TRAINING:
            job = self.move(job, Status.CHECKPOINTING, LEAVING[intent], **changes)
        else:
            job = self.change(job, message=LEAVING[intent], **changes)
        self.step.instructions.append(Stop(job, at_once))

    def validate(self) -> None:
        """Raise AssertionError unless what is taken is what the jobs hold."""
        self.cluster.validate()
        held: dict[str, set[str]] = {node_id: set() for node_id in self.cluster.nodes}
        for job in self.jobs.values():
            assert job.status not in TERMINAL, job
            assert bool(job.placement) == (job.status in HOLDING), job
            for share in job.placement:
                if share.node_id in held:
                    held[share.node_id].add(job.job_id)
        for node in self.cluster.nodes.values():
            assert node.job_ids == held[node.spec.node_id], node
            shares = [
                share
                for job_id in node.job_ids
                for share in self.jobs[job_id].placement
                if share.node_id == node.spec.node_id
            ]
            assert node.taken_cpus == sum(share.cpus for share in shares), node
            assert node.taken_memory == sum(share.memory for share in shares), node
            assert sorted(node.taken_gpus) == sorted(
                index for share in shares for index in share.gpus
            ), node
