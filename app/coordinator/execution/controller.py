"""Drives the scheduler: applies changes, and carries out the instructions that follow from them."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from app.coordinator.cluster.node_specs import NodeReport
from app.coordinator.engines.engine import Engine, EngineEvents
from app.coordinator.execution.changes import Change, JobChanges, T
from app.coordinator.execution.coordinator_lines import CoordinatorLines
from app.coordinator.execution.decisions import recovered
from app.coordinator.execution.job_tasks import JobTasks, pause
from app.coordinator.execution.job_work import JobWork, never
from app.coordinator.execution.run_spec import RunSpecs
from app.coordinator.execution.workspace import Workspace
from app.coordinator.failures import CoordinatorStops, FailureBackoff, is_passing
from app.coordinator.jobs.events import JobEvents
from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.states import HOLDING, RUNNING, Status
from app.coordinator.jobs.store import Store
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.scheduling.job_changes import AT_ONCE
from app.coordinator.scheduling.scheduler import Scheduler, SchedulerEvent
from app.coordinator.scheduling.transitions import (
    Abandon,
    Export,
    Instruction,
    Launch,
    Prepare,
    Stop,
)
from app.coordinator.storage.disk_reserve import DiskReserve

#: Seconds that what cannot be stored may hold up the coordinator's end.
_CLOSE_PATIENCE: Final = 10.0
#: Seconds between two looks at the clock while a job waits for a time of day: it may be set.
_LOOK_AGAIN: Final = 30.0
#: Seconds between two reports of what waits to the engine, and the jobs that are reported.
_REQUEST_INTERVAL: Final = 1.0
_REQUESTED: Final = 64

log = structlog.get_logger("scaimind.coordinator")


class Controller:
    """Carries out what the scheduler decides. Everything runs on one event loop."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        store: Store,
        workspace: Workspace,
        job_events: JobEvents,
        run_specs: RunSpecs,
        reserve: DiskReserve,
        secrets: JobSecrets,
        engine: Engine,
        leadership: Leadership,
        stop_grace: float,
        clock: Callable[[], int],
    ) -> None:
        """A run has `stop_grace` seconds to stop."""
        self.scheduler = scheduler
        self._store = store
        self._job_events = job_events
        self._reserve = reserve
        self._secrets = secrets
        self._leadership = leadership
        self._clock = clock
        #: Set when the coordinator's end may wait no longer.
        self._leave = asyncio.Event()
        lines = CoordinatorLines(
            workspace=workspace, job_events=job_events, leadership=leadership, clock=clock
        )
        self._work = JobWork(
            scheduler=scheduler,
            workspace=workspace,
            run_specs=run_specs,
            lines=lines,
            reserve=reserve,
            engine=engine,
            leadership=leadership,
            clock=clock,
            event=self._event,
        )
        self._changes = JobChanges(
            scheduler=scheduler,
            store=store,
            reserve=reserve,
            secrets=secrets,
            job_events=job_events,
            carry_out=self._carry_out,
            hand_over=self._hand_over,
        )
        self._tasks = JobTasks(
            scheduler=scheduler,
            actions=self._work,
            lines=lines,
            event=self._event,
            leave=self._leave,
            stop_grace=stop_grace,
        )
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_backoff = FailureBackoff()
        #: The newest nodes that were reported, until the scheduler has them.
        self._reported: Sequence[NodeReport] | None = None
        self._taking_up: asyncio.Task[None] | None = None
        self._engine = engine
        self._leadership = leadership
        self._requesting: asyncio.TimerHandle | None = None

    # Life

    def start(self) -> None:
        """Take up what was stored: find runs again, go on with what was begun, then schedule."""
        self._reserve.fill()
        self._leadership.check()
        for job_id in self._secrets.sweep():
            # What another leader is given meanwhile was not there at the sweep.
            self._leadership.check()
            if not self._store.may_run_again(job_id):
                self._changes.forget_secrets(job_id)
        jobs = self._store.unfinished()
        running = [job for job in jobs if job.status in RUNNING]
        self._engine.keep_runs(running, term=self._leadership.term)
        problems = self.scheduler.restore(jobs)
        for job in jobs:
            if job.status in HOLDING:
                recovered(job).write()
            if problem := problems.get(job.job_id):
                self._tasks.give_up(job, problem)
            elif job.status in (Status.SCHEDULING, Status.PREPARING):
                self._tasks.prepare(job)
            elif job.status in RUNNING:
                self._tasks.run(job)
                if job.stop_reason is not StopReason.NONE:
                    self._tasks.stop(job, at_once=job.stop_reason in AT_ONCE)
            elif job.status is Status.EXPORTING:
                self._tasks.export(job)
        self._ring()

    async def close(self) -> None:
        """Ask all runs to leave, and wait until they have; they go on at the next start.

        What cannot be stored meanwhile is left as it is: runners can do
        without the coordinator, and the next one finds them.
        """
        timer = asyncio.get_running_loop().call_later(_CLOSE_PATIENCE, self._leave.set)
        try:
            await self._event(Scheduler.close, never)
        except Exception as error:  # the coordinator ends all the same, and no job is lost
            log.error("runs_not_asked_to_leave", exc_info=error)
            self._tasks.let_go()
        finally:
            timer.cancel()
        for job in self.scheduler.jobs.values():
            if job.status is Status.EXPORTING:
                self._tasks.abandon(job.job_id)
        await self._tasks.close(patience=_CLOSE_PATIENCE)
        if self._alarm is not None:
            self._alarm.cancel()
        if self._requesting is not None:
            self._requesting.cancel()
        self._leave.set()
        if self._taking_up is not None:
            self._taking_up.cancel()
            await asyncio.wait([self._taking_up])
        self._work.close()

    # Steps

    def apply(self, change: Change[T], *, also: Callable[[], None] | None = None) -> T:
        """Change jobs: the one way to do it. All of `change` happens, or nothing.

        `change` is given the scheduler, and returns the transition that its
        events and requests have recorded, and a result, which this returns.
        `also` joins the transaction in which the change is stored. Raises what
        both raise, and sqlite3.Error; memory and disk are as before then.
        Raises RuntimeError if either calls this. See `JobChanges.apply`.
        """
        result = self._changes.apply(change, also=also)
        self._set_alarm()
        if self._requesting is None and not self._leave.is_set():
            loop = asyncio.get_running_loop()
            self._requesting = loop.call_later(_REQUEST_INTERVAL, self._request_nodes)
        return result

    def check_leads(self) -> None:
        """Raise LeadershipLost unless this coordinator leads."""
        self._leadership.check()

    def _request_nodes(self) -> None:
        """Report to the engine what the cluster must have room for: what runs, and what waits."""
        self._requesting = None
        jobs = (*self.scheduler.holding.values(), *self.scheduler.waiting.first(_REQUESTED))
        self._engine.request_nodes([job.resource_request for job in jobs])

    def forget(self, job: JobRecord) -> bool:
        """Delete a job that has ended, as `JobChanges.forget` does. Raises sqlite3.Error."""
        return self._changes.forget(job, now=self._clock())

    def redescribe(self, job: JobRecord) -> None:
        """Store the new name and labels of a job that has ended. Raises sqlite3.Error."""
        self._changes.redescribe(job)

    async def settled(self, job_id: str) -> None:
        """Wait until nothing is being done for a job any more."""
        await self._tasks.settled(job_id)

    def end_for_memory(self, job_id: str, reason: str) -> None:
        """End a run at once, since the machine is short of memory. Raises sqlite3.Error."""
        self.apply(lambda scheduler: (scheduler.short_of_memory(job_id, reason), None))

    @property
    def engine_events(self) -> EngineEvents:
        """Whom the engine calls."""
        return EngineEvents(job_grew=self.notify, nodes_changed=self.nodes_changed)

    def nodes_changed(self, reports: Sequence[NodeReport]) -> None:
        """Take up the nodes as the engine reports them, all of them."""
        if self._leave.is_set():
            return
        self._reported = reports
        if self._taking_up is None or self._taking_up.done():
            self._taking_up = asyncio.create_task(self._take_up_nodes(), name="nodes of the engine")

    async def _take_up_nodes(self) -> None:
        while (reports := self._reported) is not None:
            try:
                await self._event(partial(Scheduler.nodes_changed, reports=reports), never)
            except CoordinatorStops:
                return
            if self._reported is reports:
                self._reported = None

    async def _event(self, event: SchedulerEvent, void: Callable[[], bool]) -> None:
        """Apply what must come to pass, however long the disk is full, unless it is void by then.
        Raises CoordinatorStops, and what the event does."""
        backoff = FailureBackoff()
        while not void():
            try:
                self.apply(lambda scheduler: (event(scheduler), None))
            except Exception as error:
                if not is_passing(error):
                    raise
                seconds = backoff.after_failure()
                if backoff.worth_a_line:
                    log.error("state_not_stored", failures=backoff.failures, reason=str(error))
                if self._leave.is_set():
                    raise CoordinatorStops from error
                await pause(seconds, unless=self._leave)
            else:
                return

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        delay = self.scheduler.next_tick()
        if delay is not None:
            seconds = min(delay / 1e6, _LOOK_AGAIN)
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        try:
            self.apply(lambda scheduler: (scheduler.tick(), None))
        except CoordinatorStops:
            return
        except Exception as error:  # time goes on for all jobs, whatever is wrong with one
            seconds = self._alarm_backoff.after_failure()
            if self._alarm_backoff.worth_a_line:
                log.error(
                    "time_not_passed_on",
                    failures=self._alarm_backoff.failures,
                    exc_info=None if is_passing(error) else error,
                    reason=str(error),
                )
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._ring)
        else:
            self._alarm_backoff = FailureBackoff()

    # Instructions

    def notify(self, job_id: str) -> None:
        """A runner tells that a job's log or metrics have grown."""
        self._job_events.wake(job_id)
        self._tasks.notify(job_id)

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Prepare(job):
                self._tasks.prepare(job)
            case Launch(job):
                self._tasks.run(job)
            case Export(job):
                self._tasks.export(job)
            case Abandon(job_id):
                self._tasks.abandon(job_id)
            case Stop(job, at_once):
                self._tasks.stop(job, at_once=at_once)

    def _hand_over(self, instruction: Instruction, error: Exception) -> None:
        """Leave what could not be carried out to the job's owner, if the job has not ended."""
        if (job := self.scheduler.jobs.get(instruction.job_id)) is not None:
            self._tasks.take_over(job, error, lambda: self._carry_out(instruction))
