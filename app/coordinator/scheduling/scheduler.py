"""What happens to jobs: a synchronous core that takes events and records transitions.

It starts nothing and waits for nothing: a `Transition` says which jobs changed and
what is to be done, and whoever drives it stores the changes first, then does
it. Times are in microseconds since 1970 and come from the clock that it is
given; how long a run takes is measured by a stopwatch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, TypeAlias

from app.coordinator.cluster.node_specs import NodeReport
from app.coordinator.cluster.nodes import Cluster, NodeState
from app.coordinator.errors import FailedPrecondition, NotFound
from app.coordinator.jobs.model import Checkpoint, JobRecord, Kind, Progress, StopReason
from app.coordinator.jobs.queue_rules import SchedulingRules
from app.coordinator.jobs.states import HOLDING, RUNNING, Status
from app.coordinator.jobs.times import Stopwatch
from app.coordinator.scheduling.estimates import Forecast, RunTimes
from app.coordinator.scheduling.job_changes import (
    STOPPING,
    cancel_or_fail,
    end_job,
    export_job,
    fail_job,
    queue_job,
    record_report,
    run_message,
    stop_run,
)
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.node_changes import drain_node, take_up_nodes
from app.coordinator.scheduling.outcomes import apply_run_result
from app.coordinator.scheduling.placement import place_waiting, verdicts_of
from app.coordinator.scheduling.planning import Planner, position
from app.coordinator.scheduling.queues.line import FairPositions
from app.coordinator.scheduling.queues.waiting import WaitingJobs
from app.coordinator.scheduling.reasons import WaitReasons
from app.coordinator.scheduling.transitions import Abandon, Launch, RunEnd, Transition
from app.shortening import quoted
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

_SECOND: Final = 1_000_000


class Scheduler:
    """The jobs that have not ended, and the nodes they run on."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        clock: Callable[[], int],
        run_times: RunTimes,
        stopwatch: Stopwatch | None = None,
        newest_creation: int = 0,
        rules: SchedulingRules | None = None,
    ) -> None:
        """`stopwatch` goes by `clock` unless it is given; for `newest_creation` see `JobTable`."""
        self.cluster = cluster
        self.rules = rules or SchedulingRules()
        self._table = JobTable(
            cluster=cluster, clock=clock, newest_creation=newest_creation, rules=self.rules
        )
        self._stopwatch = stopwatch or Stopwatch("", clock)
        self._clock = clock
        self._run_times = run_times
        self._planner = Planner(self._table, run_times, self._ran)
        self._closing = False
        #: Whether the last look at what waits did not get as far as it could.
        self._cut_short = False

    @property
    def jobs(self) -> Mapping[str, JobRecord]:
        """The jobs that have not ended, by id."""
        return self._table.jobs

    # Events

    def restore(self, jobs: Iterable[JobRecord]) -> dict[str, ValueError]:
        """Take up what was stored. Call once, before any event.

        Returns why jobs do not have their resources, by id: those must end.
        """
        return self._table.restore(map(self._measured, jobs))

    def _measured(self, job: JobRecord) -> JobRecord:
        """A job whose run is measured from a moment of this start of the machine.

        No run outlives the machine's start, and one that an earlier coordinator
        began may still go on: it is taken to have run for as long as the clock
        says, and no longer than the machine.
        """
        if job.status not in RUNNING or self._stopwatch.has(job.run_began):
            return job
        ran = self._table.now() - job.run_started_at
        return replace(job, run_began=self._stopwatch.ago(ran))

    @contextmanager
    def changing(self) -> Iterator[Transition]:
        """Record what the block changes, and undo all of it if the block raises.

        Every event and every request needs such a block, and returns what it
        has recorded so far. Raises RuntimeError within another block.
        """
        closing = self._closing
        try:
            with self._table.changing() as transition:
                yield transition
        except BaseException:
            self._closing = closing
            raise
        for job in transition.ended_runs():
            self._run_times.add_seconds(job.queue_name, job.ran / _SECOND)

    def submit(self, job: JobRecord) -> Transition:
        """Add a new job, PENDING. It waits for `not_before`, then in the queue."""
        job = self._table.transition(job)
        if job.not_before <= self._clock():
            queue_job(self._table, job, "Waiting in the queue.")
        return self._finish()

    def preparing(self, job_id: str) -> Transition:
        """Record that the job's directory is being set up."""
        job = self.jobs[job_id]
        nodes = ", ".join(job.node_ids)
        self._table.transition(job, Status.PREPARING, f"Fetching data and scripts for {nodes}.")
        return self._table.recorded

    def prepared(self, job_id: str) -> Transition:
        """Begin a run, or an export of what another job made: the job's directory is ready."""
        job = self.jobs[job_id]
        if job.artefacts_of:
            export_job(self._table, job)
            return self._finish()
        now = self._table.stamp(job)
        status = Status.TRAINING if job.kind is Kind.TRAINING else Status.EVALUATING
        run = job.run_count + 1
        job = self._table.transition(
            job,
            status,
            run_message(job, run),
            run_count=run,
            started_at=job.started_at or now,
            run_started_at=now,
            run_began=self._stopwatch.now(),
            ran=0,
        )
        self._table.instruct(Launch(job))
        return self._finish()

    def preparation_failed(self, job_id: str, reason: str) -> Transition:
        """Fail a job whose directory could not be set up; `reason` is for its owner."""
        fail_job(self._table, self.jobs[job_id], reason, "Preparation failed.")
        return self._finish()

    def observed(
        self,
        job_id: str,
        *,
        progress: Progress | None = None,
        checkpoints: tuple[Checkpoint, ...] | None = None,
        stalled: float | None = None,
    ) -> Transition:
        """Record what a run reported by itself, as `record_report` has it."""
        job = self.jobs[job_id]
        record_report(self._table, job, progress=progress, checkpoints=checkpoints, stalled=stalled)
        return self._table.recorded

    def short_of_memory(self, job_id: str, reason: str) -> Transition:
        """End a run since the machine is short of memory, unless it is being stopped already."""
        job = self.jobs.get(job_id)
        if job is None or job.status not in RUNNING or job.stop_reason is not StopReason.NONE:
            return self._table.recorded
        stop_run(self._table, job, StopReason.MEMORY, reason)
        return self._finish()

    def run_ended(self, job_id: str, end: RunEnd) -> Transition:
        """Record how a run ended; its processes are gone and its log is complete."""
        job = self.jobs[job_id]
        job = self._table.transition(job, exit_code=end.exit_code, ran=self._ran(job))
        apply_run_result(self._table, job, end)
        return self._finish()

    def exported(self, job_id: str, output_path: str) -> Transition:
        """Complete a job whose artefacts are at `output_path`."""
        job = self._table.transition(self.jobs[job_id], output_path=output_path)
        if job.stop_reason is StopReason.CANCEL:
            end_job(self._table, job, Status.CANCELLED, job.stop_message)
        else:
            end_job(
                self._table,
                job,
                Status.COMPLETED,
                f"Completed. The artefacts are at {output_path}.",
            )
        return self._finish()

    def export_failed(self, job_id: str, reason: str) -> Transition:
        """Fail a job whose artefacts could not be exported."""
        cancel_or_fail(self._table, self.jobs[job_id], reason)
        return self._finish()

    def broken_off(self, job_id: str, reason: str) -> Transition:
        """Fail a job for which something failed; nothing of it lives anymore."""
        cancel_or_fail(self._table, self.jobs[job_id], reason)
        return self._finish()

    def tick(self) -> Transition:
        """Act on the time that has passed; once also after all that ran was found again."""
        for job in self.waiting.due(self._clock()):
            queue_job(self._table, job, "Waiting in the queue.")
        for job in list(self.holding.values()):
            if self._time_left(job) == 0:
                limit = job.max_runtime // 1_000_000
                stop_run(
                    self._table,
                    job,
                    StopReason.TIMEOUT,
                    f"The job reached its max_runtime_seconds of {limit}.",
                )
        return self._finish()

    def next_tick(self) -> int | None:
        """Microseconds until `tick` has something to do, as far as is known now, or None.

        The clock may be set meanwhile: look again from time to time.
        """
        if self._cut_short and not self._closing:
            return 0
        lefts = map(self._time_left, self.holding.values())
        delays = [left for left in lefts if left is not None]
        if (time := self.waiting.next_time()) is not None:
            delays.append(max(time - self._clock(), 0))
        return min(delays, default=None)

    # Requests

    def cancel(self, job_id: str, reason: str) -> Transition:
        """Cancel a job. Asking again while it is being stopped changes nothing."""
        job = self.jobs[job_id]
        text = f"Cancelled by request: {reason}" if reason else "Cancelled by request."
        if job.stop_reason is StopReason.CANCEL:
            return self._table.recorded
        if job.status in RUNNING:
            stop_run(self._table, job, StopReason.CANCEL, text)
        elif job.status is Status.EXPORTING:
            self._table.transition(job, stop_reason=StopReason.CANCEL, stop_message=text)
            self._table.instruct(Abandon(job_id))
        else:
            if job.status in HOLDING:
                self._table.instruct(Abandon(job_id))
            end_job(self._table, job, Status.CANCELLED, text)
        return self._finish()

    def pause(self, job_id: str, *, save_checkpoint: bool) -> Transition:
        """Stop a running job so that it can be resumed."""
        job = self.jobs[job_id]
        if job.stop_reason in (StopReason.PAUSE, StopReason.PAUSE_NOW):
            return self._table.recorded
        if job.stop_reason is not StopReason.NONE:
            raise FailedPrecondition(
                f"the job is {job.status.name} and cannot be paused:"
                f" {STOPPING[job.stop_reason].lower()}"
            )
        if job.status in RUNNING:
            stop_reason = StopReason.PAUSE if save_checkpoint else StopReason.PAUSE_NOW
            stop_run(self._table, job, stop_reason, "Paused by request.")
        elif job.status in (Status.SCHEDULING, Status.PREPARING):
            self._table.instruct(Abandon(job_id))
            self._table.transition(job, Status.PAUSED, "Paused by request before it ran.")
        else:
            raise FailedPrecondition(
                f"the job is {job.status.name}, and only a running job can be paused"
            )
        return self._finish()

    def resume(self, job_id: str, *, checkpoint_id: str, resume_from: str) -> Transition:
        """Queue a paused job again; an empty `resume_from` starts from the beginning."""
        job = self.jobs[job_id]
        if job.status is not Status.PAUSED:
            raise FailedPrecondition(
                f"the job is {job.status.name}, and only a PAUSED job can be resumed"
            )
        where = (
            f"resume from checkpoint {checkpoint_id}"
            if checkpoint_id
            else "start from the beginning"
        )
        job = self._table.transition(job, resume_from=resume_from)
        queue_job(self._table, job, f"Waiting in the queue to {where}.")
        return self._finish()

    def describe(self, job_id: str, submission: SubmitJobRequest) -> Transition:
        """Record another name and other labels of a job, which are in its submission."""
        self._table.transition(self.jobs[job_id], name=submission.name, submission=submission)
        return self._table.recorded

    def drain(self, node_id: str, *, force: bool, reason: str) -> Transition:
        """Place no more jobs on a node; with `force`, stop those that run there."""
        self._node(node_id)
        drain_node(self._table, node_id, force=force, reason=reason)
        return self._finish()

    def enable(self, node_id: str) -> Transition:
        """Place jobs on a node again."""
        self._node(node_id)
        self._table.set_drain(node_id, None)
        return self._finish()

    def nodes_changed(self, reports: Sequence[NodeReport]) -> Transition:
        """Take up the nodes as the engine reports them, all of them.

        Jobs that have not begun to run leave a node on which nothing can start. How
        the runs of a lost node ended is reported as for any run.
        """
        take_up_nodes(self._table, reports)
        return self._finish()

    def close(self) -> Transition:
        """Stop every run, to resume at the coordinator's next start; place no more jobs."""
        self._closing = True
        for job in list(self.jobs.values()):
            if job.status in (Status.SCHEDULING, Status.PREPARING):
                self._table.instruct(Abandon(job.job_id))
                queue_job(self._table, job, "Will be scheduled when the coordinator restarts.")
            elif job.status in RUNNING and job.stop_reason is StopReason.NONE:
                stop_run(self._table, job, StopReason.REQUEUE, "The coordinator is shutting down.")
        return self._finish()

    # Reading

    @property
    def waiting(self) -> WaitingJobs:
        """The waiting jobs of all tenants in the order in which they are placed."""
        return self._table.waiting

    @property
    def holding(self) -> Mapping[str, JobRecord]:
        """The jobs that hold resources, by id."""
        return self._table.holding

    def position(self, job: JobRecord, fair: dict[str, FairPositions]) -> int:
        """Return where a waiting job is in the order of its queue, as `planning.position` does."""
        return position(self._table, job, fair)

    def forecast(self) -> Forecast:
        """Plan the first PLAYED of the waiting jobs. The others are not looked at."""
        return self._planner.first()

    def wait_of(self, job: JobRecord, forecast: Forecast) -> int:
        """Return the seconds until a waiting job is expected to start."""
        rank = self.waiting.rank(self.waiting.place_of(job))
        return forecast.wait(job, rank=rank, now=self._clock())

    def reasons(self) -> WaitReasons:
        """Why those wait that wait, as things are now."""
        return WaitReasons(self._table, verdicts_of(self._table, ran=self._ran))

    def reasons_and_wait(self, newcomer: JobRecord, forecast: Forecast) -> tuple[WaitReasons, int]:
        """Why those wait that wait, and the seconds until a job would start if it were submitted
        now."""
        # No other was made later.
        job = replace(newcomer, status=Status.QUEUED, created_at=2**63)
        verdicts = verdicts_of(self._table, ran=self._ran, newcomer=job)
        starts = verdicts.newcomer_starts
        wait = 0 if starts else self._planner.wait_of_newcomer(job, forecast)
        return WaitReasons(self._table, verdicts), wait

    def _ran(self, job: JobRecord) -> int:
        """Microseconds that a job's run has gone on."""
        return self._stopwatch.since(job.run_began) if job.run_began else 0

    def _time_left(self, job: JobRecord) -> int | None:
        """Microseconds until a run has gone on for as long as it may; None if nothing ends it."""
        if job.status in RUNNING and job.max_runtime and job.stop_reason is StopReason.NONE:
            return max(job.max_runtime - self._ran(job), 0)
        return None

    def validate(self) -> None:
        """Raise AssertionError unless what is taken is what the jobs hold."""
        self._table.validate()

    def _node(self, node_id: str) -> NodeState:
        node = self.cluster.nodes.get(node_id)
        if node is None:
            raise NotFound(f"node {quoted(node_id, 128)} does not exist")
        return node

    def _finish(self) -> Transition:
        if not self._closing:
            self._cut_short = place_waiting(self._table, ran=self._ran)
        return self._table.recorded


#: Something that happened to a job, as a call of the scheduler's.
SchedulerEvent: TypeAlias = Callable[[Scheduler], Transition]
