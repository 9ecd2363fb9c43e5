"""What happens to jobs: a synchronous core that takes events and returns steps.

It starts nothing and waits for nothing: a `Step` says which jobs changed and
what is to be done, and whoever drives it stores the changes first, then does
it. Times are in microseconds and come from the clock that it is given.
"""

from collections.abc import Callable, Iterable
from typing import Any

from app.coordinator.cluster.nodes import Cluster, NodeState
from app.coordinator.errors import FailedPrecondition, NotFound
from app.coordinator.jobs.model import Checkpoint, Intent, JobRecord, Kind, Progress
from app.coordinator.jobs.states import HOLDING, RUNNING, Status
from app.coordinator.scheduling.estimates import RunTimes, waits
from app.coordinator.scheduling.job_table import LEAVING, Moves
from app.coordinator.scheduling.outcomes import settle_run
from app.coordinator.scheduling.placement import finds_room, place_waiting, waiting_in_order
from app.coordinator.scheduling.steps import Abandon, Launch, RunEnd, Step


class Scheduler:
    """The jobs that have not ended, and the nodes they run on."""

    def __init__(self, *, cluster: Cluster, clock: Callable[[], int], run_times: RunTimes) -> None:
        self.cluster = cluster
        self._moves = Moves(cluster=cluster, clock=clock)
        self._clock = clock
        self._run_times = run_times
        self._closing = False

    @property
    def jobs(self) -> dict[str, JobRecord]:
        """The jobs that have not ended, by id."""
        return self._moves.jobs

    # Events

    def restore(self, jobs: Iterable[JobRecord]) -> dict[str, ValueError]:
        """Take up what was stored; told once, before any event.

        Returns why jobs do not have their resources, by id: those must end.
        """
        return self._moves.restore(jobs)

    def revert(self, step: Step) -> None:
        """Undo the newest step, which could not be stored; its instructions are void."""
        self._moves.revert(step)

    def take_step(self) -> Step:
        """What a change that failed midway has changed, to be reverted."""
        return self._moves.take_step()

    def stored(self, step: Step) -> None:
        """The newest step was stored."""
        for job in step.ran:
            self._run_times.add(job, job.updated_at)

    def submit(self, job: JobRecord) -> Step:
        """A new job, PENDING. Waits for `not_before`, then queues."""
        self._moves.add(job)
        if job.not_before <= self._clock():
            self._moves.queue(job, "Waiting for its turn.")
        return self._finish()

    def preparing(self, job_id: str) -> Step:
        """The job's directory is being set up."""
        job = self.jobs[job_id]
        nodes = ", ".join(job.node_ids)
        self._moves.move(job, Status.PREPARING, f"Fetching data and scripts for {nodes}.")
        return self._finish()

    def prepared(self, job_id: str) -> Step:
        """The job's directory is ready: a run begins, or an export of what another job made."""
        job = self.jobs[job_id]
        if job.artefacts_of:
            self._moves.export(job)
            return self._finish()
        now = self._clock()
        status = Status.TRAINING if job.kind is Kind.TRAINING else Status.EVALUATING
        run = job.run_count + 1
        job = self._moves.move(
            job,
            status,
            f"Run {run} on {', '.join(job.node_ids)}.",
            run_count=run,
            started_at=job.started_at or now,
            run_started_at=now,
        )
        self._moves.step.instructions.append(Launch(job))
        return self._finish()

    def preparation_failed(self, job_id: str, reason: str) -> Step:
        """The job's directory could not be set up; `reason` is for the caller."""
        self._moves.fail(self.jobs[job_id], reason, "It could not be prepared.")
        return self._finish()

    def observed(
        self,
        job_id: str,
        *,
        progress: Progress | None = None,
        checkpoints: tuple[Checkpoint, ...] | None = None,
    ) -> Step:
        """What a run reported by itself."""
        job = self.jobs[job_id]
        changes: dict[str, Any] = {}
        if progress is not None and progress != job.progress:
            changes["progress"] = progress
        if checkpoints is not None and checkpoints != job.checkpoints:
            changes["checkpoints"] = checkpoints
            changes["checkpoint_count"] = len(checkpoints)
        if changes:
            self._moves.change(job, **changes)
        return self._moves.take_step()

    def short_of_memory(self, job_id: str, reason: str) -> Step:
        """The machine is short of memory, and this job's run has to go, unless it goes already."""
        job = self.jobs.get(job_id)
        if job is None or job.status not in RUNNING or job.intent is not Intent.NONE:
            return Step()
        self._moves.stop(job, Intent.MEMORY, reason)
        return self._finish()

    def run_ended(self, job_id: str, end: RunEnd) -> Step:
        """The run is over, its processes are gone and its log is complete."""
        job = self._moves.change(self.jobs[job_id], exit_code=end.exit_code)
        self._moves.step.ran.append(job)
        settle_run(self._moves, job, end)
        return self._finish()

    def exported(self, job_id: str, output_path: str) -> Step:
        """The artefacts are at `output_path`."""
        job = self._moves.change(self.jobs[job_id], output_path=output_path)
        if job.intent is Intent.CANCEL:
            self._moves.end(job, Status.CANCELLED, job.intent_reason)
        else:
            self._moves.end(
                job, Status.COMPLETED, f"Completed; its artefacts are at {output_path}."
            )
        return self._finish()

    def export_failed(self, job_id: str, reason: str) -> Step:
        """The artefacts could not be brought to their destination."""
        job = self.jobs[job_id]
        if job.intent is Intent.CANCEL:
            self._moves.end(job, Status.CANCELLED, job.intent_reason)
        else:
            self._moves.fail(job, reason)
        return self._finish()

    def broken_off(self, job_id: str, reason: str) -> Step:
        """What was being done for the job failed, and nothing of it lives any more."""
        job = self.jobs[job_id]
        if job.intent is Intent.CANCEL:
            self._moves.end(job, Status.CANCELLED, job.intent_reason)
        else:
            self._moves.fail(job, reason)
        return self._finish()

    def tick(self) -> Step:
        """Time has passed, see `next_deadline`; and once after all that ran was found again."""
        now = self._clock()
        for job in list(self.jobs.values()):
            if job.status is Status.PENDING and job.not_before <= now:
                self._moves.queue(job, "Waiting for its turn.")
            elif _overdue(job, now):
                limit = job.max_runtime // 1_000_000
                self._moves.stop(
                    job, Intent.TIMEOUT, f"It ran for its max_runtime_seconds of {limit}."
                )
        return self._finish()

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, or None."""
        deadlines = [
            job.not_before for job in self.jobs.values() if job.status is Status.PENDING
        ] + [
            job.run_started_at + job.max_runtime
            for job in self.jobs.values()
            if job.status in RUNNING and job.max_runtime and job.intent is Intent.NONE
        ]
        return min(deadlines, default=None)

    # Requests

    def cancel(self, job_id: str, reason: str) -> Step:
        """End a job that has not ended. Asking twice is no error while it is being stopped."""
        job = self.jobs[job_id]
        text = f"Cancelled by request: {reason}" if reason else "Cancelled by request."
        if job.intent is Intent.CANCEL:
            return Step()
        if job.status in RUNNING:
            self._moves.stop(job, Intent.CANCEL, text)
        elif job.status is Status.EXPORTING:
            self._moves.change(job, intent=Intent.CANCEL, intent_reason=text)
            self._moves.step.instructions.append(Abandon(job_id))
        else:
            if job.status in HOLDING:
                self._moves.step.instructions.append(Abandon(job_id))
            self._moves.end(job, Status.CANCELLED, text)
        return self._finish()

    def pause(self, job_id: str, *, save_checkpoint: bool) -> Step:
        """Stop a running job so that it can be resumed."""
        job = self.jobs[job_id]
        if job.intent in (Intent.PAUSE, Intent.PAUSE_NOW):
            return Step()
        if job.intent is not Intent.NONE:
            raise FailedPrecondition(
                f"the job is {job.status.name} and cannot be paused: {LEAVING[job.intent].lower()}"
            )
        if job.status in RUNNING:
            intent = Intent.PAUSE if save_checkpoint else Intent.PAUSE_NOW
            self._moves.stop(job, intent, "Paused by request.")
        elif job.status in (Status.SCHEDULING, Status.PREPARING):
            self._moves.step.instructions.append(Abandon(job_id))
            self._moves.move(job, Status.PAUSED, "Paused by request, before it ran.")
        else:
            raise FailedPrecondition(
                f"the job is {job.status.name}, and only a running job can be paused"
            )
        return self._finish()

    def resume(self, job_id: str, *, checkpoint_id: str, resume_from: str) -> Step:
        """Queue a paused job again; `resume_from` is where it goes on, empty is afresh."""
        job = self.jobs[job_id]
        if job.status is not Status.PAUSED:
            raise FailedPrecondition(
                f"the job is {job.status.name}, and only a PAUSED job can be resumed"
            )
        where = f"from checkpoint {checkpoint_id}" if checkpoint_id else "afresh"
        job = self._moves.change(job, resume_from=resume_from)
        self._moves.queue(job, f"Waiting to go on {where}.")
        return self._finish()

    def drain(self, node_id: str, *, force: bool, reason: str) -> Step:
        """Take no new jobs on a node; with `force`, stop those that run there."""
        node = self._node(node_id)
        self._moves.step.drained[node_id] = node.drain
        node.drain = reason
        for job_id in sorted(node.job_ids):
            job = self.jobs[job_id]
            if job.status in (Status.SCHEDULING, Status.PREPARING):
                self._moves.step.instructions.append(Abandon(job_id))
                self._moves.queue(job, f"Node {node_id} is being drained; waiting for another.")
            elif force and job.status in RUNNING and job.intent is Intent.NONE:
                because = f" ({reason})" if reason else ""
                self._moves.stop(
                    job, Intent.EVICT, f"Aborted: node {node_id} was drained by force{because}."
                )
        return self._finish()

    def enable(self, node_id: str) -> Step:
        """Take jobs on a node again."""
        node = self._node(node_id)
        self._moves.step.drained[node_id] = node.drain
        node.drain = None
        return self._finish()

    def close(self) -> Step:
        """The coordinator stops: every run is asked to leave, and goes on at the next start."""
        self._closing = True
        for job in list(self.jobs.values()):
            if job.status in (Status.SCHEDULING, Status.PREPARING):
                self._moves.step.instructions.append(Abandon(job.job_id))
                self._moves.queue(job, "Waiting for the coordinator to be back.")
            elif job.status in RUNNING and job.intent is Intent.NONE:
                self._moves.stop(job, Intent.REQUEUE, "The coordinator stops.")
        return self._finish()

    # Reading

    def queue(self) -> list[JobRecord]:
        """The jobs that wait, of all tenants, in the order in which they are placed."""
        return waiting_in_order(self._moves)

    def waits(self) -> dict[str, int]:
        """Seconds until each waiting job is expected to start, by job id."""
        return self._play(self.queue())

    def wait_of_newcomer(self, job: JobRecord) -> int:
        """Seconds until a job would be expected to start if it were submitted now."""
        ahead = [other for other in self.queue() if other.priority >= job.priority]
        if finds_room(self._moves, job, behind=ahead):
            return 0
        return self._play([*ahead, job])[job.job_id]

    def _play(self, waiting: list[JobRecord]) -> dict[str, int]:
        holding = [job for job in self.jobs.values() if job.status in HOLDING]
        return waits(self.cluster, waiting, holding, self._run_times, self._clock())

    def validate(self) -> None:
        """Raise AssertionError unless what is taken is what the jobs hold."""
        self._moves.validate()

    def _node(self, node_id: str) -> NodeState:
        node = self.cluster.nodes.get(node_id)
        if node is None:
            raise NotFound(f"there is no node {node_id[:128]!r}")
        return node

    def _finish(self) -> Step:
        if not self._closing:
            place_waiting(self._moves)
        return self._moves.take_step()


def _overdue(job: JobRecord, now: int) -> bool:
    return (
        job.status in RUNNING
        and job.max_runtime > 0
        and job.intent is Intent.NONE
        and job.run_started_at + job.max_runtime <= now
    )
