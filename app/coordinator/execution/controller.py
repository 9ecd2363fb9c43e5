"""Drives the scheduler: stores each step, tells the watchers, and carries its instructions out."""

import asyncio
import contextvars
import sqlite3
from collections.abc import Callable
from typing import Final

import structlog

from app.coordinator.engines.engine import Engine
from app.coordinator.execution.coordinator_lines import CoordinatorLines
from app.coordinator.execution.decisions import decisions_in, recovered
from app.coordinator.execution.job_tasks import JobTasks, pause
from app.coordinator.execution.job_work import JobWork, never
from app.coordinator.execution.run_spec import RunSpecs
from app.coordinator.execution.workspace import Workspace
from app.coordinator.failures import Backoff, CoordinatorStops, is_passing
from app.coordinator.jobs.events import JobEvents
from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.states import HOLDING, RETRYABLE, RUNNING, TERMINAL, Status
from app.coordinator.jobs.store import Store
from app.coordinator.scheduling.job_table import AT_ONCE
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import (
    Abandon,
    Export,
    Instruction,
    Launch,
    Prepare,
    Stop,
    Transition,
)
from app.coordinator.storage.disk_reserve import Reserve

#: Seconds that what cannot be stored may hold up the coordinator's end.
_CLOSE_PATIENCE: Final = 10.0
#: Seconds between two looks at the clock while a job waits for a time of day: it may be set.
_LOOK_AGAIN: Final = 30.0

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
        reserve: Reserve,
        secrets: JobSecrets,
        engine: Engine,
        clock: Callable[[], int],
    ) -> None:
        self.scheduler = scheduler
        self._store = store
        self._job_events = job_events
        self._reserve = reserve
        self._secrets = secrets
        #: Set when the coordinator's end may wait no longer.
        self._leave = asyncio.Event()
        lines = CoordinatorLines(workspace=workspace, job_events=job_events, clock=clock)
        self._work = JobWork(
            scheduler=scheduler,
            workspace=workspace,
            run_specs=run_specs,
            lines=lines,
            reserve=reserve,
            engine=engine,
            clock=clock,
            event=self._event,
        )
        self._tasks = JobTasks(
            scheduler=scheduler,
            actions=self._work,
            lines=lines,
            event=self._event,
            leave=self._leave,
        )
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_backoff = Backoff()

    # Life

    def start(self) -> None:
        """Take up what was stored: find runs again, go on with what was begun, then schedule."""
        self._reserve.fill()
        for job_id in self._secrets.sweep():
            if not self._store.may_run_again(job_id):
                self._forget_secrets(job_id)
        jobs = self._store.unfinished()
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
            await self._event(self.scheduler.close, never)
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
        self._work.close()

    # Steps

    def apply(
        self, change: Callable[[], Transition], *, also: Callable[[], None] | None = None
    ) -> Transition:
        """Change jobs: the one way to do it. All of it is stored, with `also` in the same
        transaction, and then set going; or nothing has happened.

        `change` is a call of the scheduler's. Returns its step. Raises what
        `change` and `also` do, and sqlite3.Error.
        """
        try:
            transition = change()
        except BaseException:
            self.scheduler.revert(self.scheduler.take_transition())
            raise
        try:
            try:
                self._save(transition, also)
            except sqlite3.OperationalError:
                if not self._reserve.release():
                    raise
                log.warning("disk_reserve_released")
                self._save(transition, also)
        except BaseException:
            self.scheduler.revert(transition)
            raise
        self.scheduler.stored(transition)
        said = {job_id: _said(job) for job_id, job in transition.before.items()}
        if any(job.status in TERMINAL for job in transition.changed):
            self._reserve.fill()
        for job in transition.changed:
            if job.status in TERMINAL - RETRYABLE:
                self._forget_secrets(job.job_id)
            if _said(job) != said.get(job.job_id):
                said[job.job_id] = _said(job)
                self._job_events.announce(job)
                log.info(
                    "job_changed",
                    job_id=job.job_id,
                    tenant_id=job.tenant_id,
                    status=job.status.name,
                    message=job.message,
                )
        for decision in decisions_in(transition):
            decision.write()
        # What a request sets going outlives it and may be another tenant's: not for its trace.
        contextvars.Context().run(self._set_going, transition)
        return transition

    def _set_going(self, transition: Transition) -> None:
        for instruction in transition.instructions:
            self._carry_out(instruction)
        self._set_alarm()

    def end_for_memory(self, job_id: str, reason: str) -> None:
        """End a run at once, since the machine is short of memory. Raises sqlite3.Error."""
        self.apply(lambda: self.scheduler.short_of_memory(job_id, reason))

    def _forget_secrets(self, job_id: str) -> None:
        """Remove what a job was given that must not outlive it; the next start tries again."""
        try:
            self._secrets.forget(job_id)
        except OSError as error:
            log.error("secrets_not_removed", job_id=job_id, reason=error.strerror)

    def _save(self, transition: Transition, also: Callable[[], None] | None) -> None:
        with self._store.transaction():
            self._store.save_jobs(transition.newest().values())
            for job_id, job in transition.newest().items():
                self._store.save_checkpoints(transition.before[job_id], job)
            for node_id in transition.drained:
                self._store.save_drain(node_id, self.scheduler.cluster.nodes[node_id].drain)
            if also is not None:
                also()

    async def _event(self, change: Callable[[], Transition], void: Callable[[], bool]) -> None:
        """Apply a change that must come to pass, however long the disk is full, unless it is void
        by then. Raises CoordinatorStops, and what the change does."""
        backoff = Backoff()
        while not void():
            try:
                self.apply(change)
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
            self.apply(self.scheduler.tick)
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
            self._alarm_backoff = Backoff()

    # Instructions

    def notice(self, job_id: str) -> None:
        """A runner tells that a job's log or metrics have grown."""
        self._job_events.wake(job_id)
        self._tasks.notice(job_id)

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


def _said(job: JobRecord | None) -> tuple[Status, str] | None:
    return (job.status, job.message) if job is not None else None
