"""What happens to jobs: a synchronous core that takes events and returns steps.

It starts nothing and waits for nothing: a `Step` says which jobs changed and
what is to be done, and whoever drives it stores the changes first, then does
it. Times are in microseconds and come from the clock that it is given.
"""

import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .cluster import Cluster, NodeState
from .estimates import RunTimes, waits
from .records import Checkpoint, Intent, JobRecord, Kind, Progress
from .refusals import FailedPrecondition, NotFound
from .states import HOLDING, RUNNING, TERMINAL, WAITING, Status, check_move


@dataclass(frozen=True, slots=True)
class Prepare:
    """Set up the job's directory, then tell `preparing` and `prepared`."""

    job: JobRecord


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give up preparing, of which nothing more is told, or exporting, of which the end is."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the run `job.run_count`, and tell `run_ended` when it is over."""

    job: JobRecord


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the run to save a checkpoint and leave; `at_once` kills it instead."""

    job: JobRecord
    at_once: bool


@dataclass(frozen=True, slots=True)
class Export:
    """Bring the artefacts to their destination, then tell `exported`."""

    job: JobRecord


Instruction = Prepare | Abandon | Launch | Stop | Export


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run was over."""

    #: Of the training process; minus the signal's number if a signal ended it. None if unknown.
    exit_code: int | None
    #: It was asked to leave before it ended.
    stopped: bool = False
    #: Why the run could not be carried out, whatever the process did; empty otherwise.
    failure: str = ""
    #: The failure may not happen again: a signal, a lost runner.
    transient: bool = False
    #: What the process said last on stderr.
    last_words: str = ""


@dataclass(slots=True)
class Step:
    """What one event led to. `changed` has every version of a job, in order."""

    changed: list[JobRecord] = field(default_factory=list)
    #: What the changed jobs were before; None for one that is new.
    before: dict[str, JobRecord | None] = field(default_factory=dict)
    #: Nodes whose drain changed, with what it was before.
    drained: dict[str, str | None] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)

    def newest(self) -> dict[str, JobRecord]:
        """The last version of each job that changed."""
        return {job.job_id: job for job in self.changed}


_LEAVING = {
    Intent.PAUSE: "Saving a checkpoint before it is paused.",
    Intent.PAUSE_NOW: "Being paused.",
    Intent.PREEMPT: "Saving a checkpoint before it gives way to a job of higher priority.",
    Intent.REQUEUE: "Saving a checkpoint: the coordinator stops.",
    Intent.EVICT: "Saving a checkpoint: its node is being drained.",
    Intent.TIMEOUT: "Saving a checkpoint: it has run for as long as it may.",
    Intent.CANCEL: "Being cancelled.",
}


class Scheduler:
    """The jobs that have not ended, and the nodes they run on."""

    def __init__(self, *, cluster: Cluster, clock: Callable[[], int], run_times: RunTimes) -> None:
        self.cluster = cluster
        self.jobs: dict[str, JobRecord] = {}
        self._clock = clock
        self._run_times = run_times
        self._closing = False
        self._step = Step()

    # Events

    def restore(self, jobs: Iterable[JobRecord]) -> None:
        """Take up what was stored; told once, before any event."""
        for job in jobs:
            self.jobs[job.job_id] = job
            if job.status in HOLDING:
                self.cluster.take(job.job_id, job.placement)

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

    def resume_scheduling(self) -> Step:
        """Place what waits; told once, after all that ran was found again."""
        return self._finish()

    def submit(self, job: JobRecord) -> Step:
        """A new job, PENDING. Waits for `not_before`, then queues."""
        self.jobs[job.job_id] = job
        self._step.before[job.job_id] = None
        self._step.changed.append(job)
        if job.not_before <= self._clock():
            self._queue(job, "Waiting for its turn.")
        return self._finish()

    def preparing(self, job_id: str) -> Step:
        """The job's directory is being set up."""
        job = self.jobs[job_id]
        nodes = ", ".join(job.node_ids)
        self._move(job, Status.PREPARING, f"Fetching data and scripts for {nodes}.")
        return self._finish()

    def prepared(self, job_id: str) -> Step:
        """The job's directory is ready: a run begins."""
        job = self.jobs[job_id]
        now = self._clock()
        status = Status.TRAINING if job.kind is Kind.TRAINING else Status.EVALUATING
        run = job.run_count + 1
        job = self._move(
            job,
            status,
            f"Run {run} on {', '.join(job.node_ids)}.",
            run_count=run,
            started_at=job.started_at or now,
            run_started_at=now,
        )
        self._step.instructions.append(Launch(job))
        return self._finish()

    def preparation_failed(self, job_id: str, reason: str) -> Step:
        """The job's directory could not be set up; `reason` is for the caller."""
        job = self.jobs[job_id]
        self._move(job, Status.FAILED, "It could not be prepared.", error_message=reason)
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
        if changes:
            self._change(job, **changes)
        step, self._step = self._step, Step()
        return step

    def run_ended(self, job_id: str, end: RunEnd) -> Step:
        """The run is over, its processes are gone and its log is complete."""
        job = self._change(self.jobs[job_id], exit_code=end.exit_code)
        self._run_times.add(job, self._clock())
        intent = job.intent
        finished = end.exit_code == 0 and not end.stopped and not end.failure
        if intent is Intent.CANCEL:
            self._end(job, Status.CANCELLED, job.intent_reason)
        elif end.failure and not end.transient:
            self._fail(job, end.failure)
        elif finished:
            self._export(job)
        elif intent in (Intent.PAUSE, Intent.PAUSE_NOW):
            self._move(job, Status.PAUSED, "Paused by request.", intent=Intent.NONE)
        elif intent is Intent.PREEMPT:
            self._end(job, Status.PREEMPTED, job.intent_reason)
        elif intent is Intent.REQUEUE:
            self._again(job, "Goes on when the coordinator is back.")
        elif intent is Intent.TIMEOUT:
            self._fail(job, job.intent_reason)
        elif intent is Intent.EVICT:
            self._fail_or_retry(job, job.intent_reason)
        elif end.transient:
            self._fail_or_retry(job, end.failure)
        elif end.exit_code is not None and end.exit_code < 0:
            number = -end.exit_code
            name = signal.strsignal(number)
            self._fail_or_retry(job, f"The training process was ended by signal {number} ({name}).")
        elif end.exit_code == 0:
            # It left because somebody else told it to.
            self._export(job)
        else:
            reason = f"The training process left with status {end.exit_code}."
            if end.last_words:
                reason += f" Its last line on stderr: {end.last_words}"
            self._fail(job, reason)
        return self._finish()

    def exported(self, job_id: str, output_path: str) -> Step:
        """The artefacts are at `output_path`."""
        job = self._change(self.jobs[job_id], output_path=output_path)
        if job.intent is Intent.CANCEL:
            self._end(job, Status.CANCELLED, job.intent_reason)
        else:
            self._end(job, Status.COMPLETED, f"Completed; its artefacts are at {output_path}.")
        return self._finish()

    def export_failed(self, job_id: str, reason: str) -> Step:
        """The artefacts could not be brought to their destination."""
        job = self.jobs[job_id]
        if job.intent is Intent.CANCEL:
            self._end(job, Status.CANCELLED, job.intent_reason)
        else:
            self._fail(job, reason)
        return self._finish()

    def tick(self) -> Step:
        """Time has passed: see `next_deadline`."""
        now = self._clock()
        for job in list(self.jobs.values()):
            if job.status is Status.PENDING and job.not_before <= now:
                self._queue(job, "Waiting for its turn.")
            elif self._overdue(job, now):
                limit = job.max_runtime // 1_000_000
                self._stop(job, Intent.TIMEOUT, f"It ran for its max_runtime_seconds of {limit}.")
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
            self._stop(job, Intent.CANCEL, text)
        elif job.status is Status.EXPORTING:
            self._change(job, intent=Intent.CANCEL, intent_reason=text)
            self._step.instructions.append(Abandon(job_id))
        else:
            if job.status in HOLDING:
                self._step.instructions.append(Abandon(job_id))
            self._end(job, Status.CANCELLED, text)
        return self._finish()

    def pause(self, job_id: str, *, save_checkpoint: bool) -> Step:
        """Stop a running job so that it can be resumed."""
        job = self.jobs[job_id]
        if job.intent in (Intent.PAUSE, Intent.PAUSE_NOW):
            return Step()
        if job.intent is not Intent.NONE:
            raise FailedPrecondition(
                f"the job is {job.status.name} and cannot be paused: {_LEAVING[job.intent].lower()}"
            )
        if job.status in RUNNING:
            intent = Intent.PAUSE if save_checkpoint else Intent.PAUSE_NOW
            self._stop(job, intent, "Paused by request.")
        elif job.status in (Status.SCHEDULING, Status.PREPARING):
            self._step.instructions.append(Abandon(job_id))
            self._move(job, Status.PAUSED, "Paused by request, before it ran.")
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
        job = self._change(job, resume_from=resume_from)
        self._queue(job, f"Waiting to go on {where}.")
        return self._finish()

    def drain(self, node_id: str, *, force: bool, reason: str) -> Step:
        """Take no new jobs on a node; with `force`, stop those that run there."""
        node = self._node(node_id)
        self._step.drained[node_id] = node.drain
        node.drain = reason
        for job_id in sorted(node.job_ids):
            job = self.jobs[job_id]
            if job.status in (Status.SCHEDULING, Status.PREPARING):
                self._step.instructions.append(Abandon(job_id))
                self._queue(job, f"Node {node_id} is being drained; waiting for another.")
            elif force and job.status in RUNNING and job.intent is Intent.NONE:
                because = f" ({reason})" if reason else ""
                self._stop(
                    job, Intent.EVICT, f"Aborted: node {node_id} was drained by force{because}."
                )
        return self._finish()

    def enable(self, node_id: str) -> Step:
        """Take jobs on a node again."""
        node = self._node(node_id)
        self._step.drained[node_id] = node.drain
        node.drain = None
        return self._finish()

    def close(self) -> Step:
        """The coordinator stops: every run is asked to leave, and goes on at the next start."""
        self._closing = True
        for job in list(self.jobs.values()):
            if job.status in (Status.SCHEDULING, Status.PREPARING):
                self._step.instructions.append(Abandon(job.job_id))
                self._queue(job, "Waiting for the coordinator to be back.")
            elif job.status in RUNNING and job.intent is Intent.NONE:
                self._stop(job, Intent.REQUEUE, "The coordinator stops.")
        return self._finish()

    # Reading

    def queue(self) -> list[JobRecord]:
        """The jobs that wait, of all tenants, in the order in which they are placed."""
        now = self._clock()
        return sorted(
            (job for job in self.jobs.values() if job.status in WAITING),
            key=lambda job: (job.not_before > now, -job.priority, job.created_at, job.job_id),
        )

    def waits(self, extra: JobRecord | None = None) -> dict[str, int]:
        """Seconds until each waiting job is expected to start, by job id.

        `extra` is counted as if it had been submitted now.
        """
        waiting = self.queue()
        if extra is not None:
            ahead = [job for job in waiting if job.priority >= extra.priority]
            waiting = [*ahead, extra]
        holding = [job for job in self.jobs.values() if job.status in HOLDING]
        return waits(self.cluster, waiting, holding, self._run_times, self._clock())

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

    # What events are made of

    def _node(self, node_id: str) -> NodeState:
        node = self.cluster.nodes.get(node_id)
        if node is None:
            raise NotFound(f"there is no node {node_id!r}")
        return node

    def _overdue(self, job: JobRecord, now: int) -> bool:
        return (
            job.status in RUNNING
            and job.max_runtime > 0
            and job.intent is Intent.NONE
            and job.run_started_at + job.max_runtime <= now
        )

    def _change(self, job: JobRecord, **changes: Any) -> JobRecord:
        self._step.before.setdefault(job.job_id, job)
        job = replace(job, updated_at=self._clock(), revision=job.revision + 1, **changes)
        self.jobs[job.job_id] = job
        self._step.changed.append(job)
        return job

    def _move(self, job: JobRecord, status: Status, message: str, **changes: Any) -> JobRecord:
        check_move(job.status, status)
        if job.status in HOLDING and status not in HOLDING:
            self.cluster.give_back(job.job_id, job.placement)
            changes["placement"] = ()
        if status in TERMINAL:
            changes["ended_at"] = self._clock()
        job = self._change(job, status=status, message=message, **changes)
        if status in TERMINAL:
            del self.jobs[job.job_id]
        return job

    def _queue(self, job: JobRecord, message: str) -> None:
        self._move(
            job,
            Status.QUEUED,
            message,
            queued_at=self._clock(),
            intent=Intent.NONE,
            intent_reason="",
            exit_code=None,
        )

    def _end(self, job: JobRecord, status: Status, message: str) -> None:
        self._move(job, status, message, intent=Intent.NONE, intent_reason="")

    def _fail(self, job: JobRecord, reason: str) -> None:
        self._move(
            job,
            Status.FAILED,
            "Failed.",
            error_message=reason,
            intent=Intent.NONE,
            intent_reason="",
        )

    def _fail_or_retry(self, job: JobRecord, reason: str) -> None:
        allowed = job.submission.training_config.max_retries
        if job.retry_count >= allowed:
            self._fail(job, reason)
            return
        count = job.retry_count + 1
        job = self._change(job, retry_count=count)
        self._again(job, f"Retry {count} of {allowed}: {reason}")

    def _again(self, job: JobRecord, message: str) -> None:
        """Queue a job whose run was broken off; it goes on from its newest checkpoint."""
        if job.checkpoints:
            job = self._change(job, resume_from=checkpoint_url(job, job.checkpoints[-1]))
        self._queue(job, message)

    def _export(self, job: JobRecord) -> None:
        job = self._move(job, Status.EXPORTING, "Writing artefacts to their destination.")
        self._step.instructions.append(Export(job))

    def _stop(self, job: JobRecord, intent: Intent, reason: str) -> None:
        """Begin to stop a run; `run_ended` decides by the intent what becomes of it."""
        at_once = intent is Intent.PAUSE_NOW
        saves = intent not in (Intent.CANCEL, Intent.PAUSE_NOW)
        changes: dict[str, Any] = {"intent": intent, "intent_reason": reason}
        if saves and job.status is Status.TRAINING:
            job = self._move(job, Status.CHECKPOINTING, _LEAVING[intent], **changes)
        else:
            job = self._change(job, message=_LEAVING[intent], **changes)
        self._step.instructions.append(Stop(job, at_once))

    def _finish(self) -> Step:
        if not self._closing:
            self._schedule()
        step, self._step = self._step, Step()
        return step

    # Placing

    def _schedule(self) -> None:
        """Place what waits, by priority, then age.

        A job that finds no room keeps the nodes on which it could run from
        those behind it: nobody is overtaken into waiting for ever.
        """
        kept: set[str] = set()
        for job in self.queue():
            if job.status is not Status.QUEUED:
                continue
            if len(kept) == len(self.cluster.nodes):
                break
            placement = self.cluster.place(job.demand, without=kept)
            if placement is not None:
                self.cluster.take(job.job_id, placement)
                nodes = tuple(share.node_id for share in placement)
                job = self._move(
                    job,
                    Status.SCHEDULING,
                    f"Placed on {', '.join(nodes)}.",
                    placement=placement,
                    node_ids=nodes,
                )
                self._step.instructions.append(Prepare(job))
                continue
            usable = {
                node.spec.node_id
                for node in self.cluster.nodes.values()
                if node.drain is None and node.could(job.demand)
            }
            if len(usable) < job.demand.nodes:
                # Only a drained node could help: nobody has to wait for that.
                continue
            self._make_room(job, kept)
            kept |= usable

    def _make_room(self, job: JobRecord, kept: set[str]) -> None:
        """Preempt just enough of lower priority that `job` will fit, if that is possible."""
        trial = self.cluster.copy()
        holding = [other for other in self.jobs.values() if other.status in HOLDING]
        for other in holding:
            if other.intent is not Intent.NONE or other.status is Status.EXPORTING:
                trial.give_back(other.job_id, other.placement)
        if trial.place(job.demand, without=kept) is not None:
            return
        candidates = sorted(
            (
                other
                for other in holding
                if other.preemptible
                and other.priority < job.priority
                and other.status in (Status.TRAINING, Status.EVALUATING)
                and other.intent is Intent.NONE
            ),
            key=lambda other: (other.priority, -other.run_started_at),
        )
        victims: list[JobRecord] = []
        for other in candidates:
            trial.give_back(other.job_id, other.placement)
            victims.append(other)
            if trial.place(job.demand, without=kept) is not None:
                break
        else:
            return
        for other in _spared(trial, job, victims, kept):
            victims.remove(other)
        for other in victims:
            self._stop(
                other,
                Intent.PREEMPT,
                f"Preempted by a job of priority {job.priority}; it can be retried.",
            )


def _spared(
    trial: Cluster, job: JobRecord, victims: Sequence[JobRecord], kept: set[str]
) -> list[JobRecord]:
    """Those of `victims` without whom `job` fits, too."""
    spared = []
    for other in victims:
        trial.take(other.job_id, other.placement)
        if trial.place(job.demand, without=kept) is not None:
            spared.append(other)
        else:
            trial.give_back(other.job_id, other.placement)
    return spared


def checkpoint_url(job: JobRecord, checkpoint: Checkpoint) -> str:
    """Where a checkpoint is, as a `scaidrive://` URL."""
    return f"scaidrive://{job.tenant_id}/jobs/{job.job_id}/checkpoints/{checkpoint.checkpoint_id}"
