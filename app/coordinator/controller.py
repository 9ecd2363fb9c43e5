"""Drives the scheduler: stores each step, tells the watchers, and carries its instructions out."""

import asyncio
import signal
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from .board import Board
from .hands import Hands, Work
from .job_secrets import JobSecrets
from .records import Intent, JobRecord
from .reserve import Reserve
from .run_spec import RunSpecs
from .scheduler import Scheduler
from .states import HOLDING, RETRYABLE, RUNNING, TERMINAL, Status
from .steps import Abandon, Export, Instruction, Launch, Prepare, Step, Stop
from .store import Store
from .workspace import Workspace

#: Seconds until a step that could not be stored is tried again.
STORE_PAUSE: Final = 1.0

_log = structlog.get_logger("scaimind.coordinator")


class Controller:
    """The scheduler with hands. Everything runs on one event loop."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        store: Store,
        workspace: Workspace,
        board: Board,
        run_specs: RunSpecs,
        reserve: Reserve,
        secrets: JobSecrets,
        clock: Callable[[], int],
    ) -> None:
        self.scheduler = scheduler
        self._store = store
        self._workspace = workspace
        self._board = board
        self._reserve = reserve
        self._secrets = secrets
        self._clock = clock
        self._hands = Hands(
            scheduler=scheduler,
            workspace=workspace,
            board=board,
            run_specs=run_specs,
            clock=clock,
            event=self._event,
        )
        self._works: dict[str, Work] = {}
        self._alarm: asyncio.TimerHandle | None = None

    # Life

    def start(self) -> None:
        """Take up what was stored: find runs again, go on with what was begun, then schedule."""
        self._reserve.fill()
        for job_id in self._secrets.sweep():
            if not self._store.may_run_again(job_id):
                self._forget_secrets(job_id)
        jobs = self._store.unfinished()
        self.scheduler.restore(jobs)
        for job in jobs:
            if job.status in (Status.SCHEDULING, Status.PREPARING):
                self._begin(job, self._hands.prepare)
            elif job.status in RUNNING:
                self._begin(job, self._hands.find_run)
                if job.intent is not Intent.NONE:
                    self._carry_out(Stop(job, job.intent is Intent.PAUSE_NOW))
            elif job.status is Status.EXPORTING:
                self._begin(job, self._hands.export)
        self.apply(self.scheduler.resume_scheduling())

    async def close(self) -> None:
        """Ask all runs to leave, and wait until they have; they go on at the next start."""
        await self._event(self.scheduler.close)
        for job in self.scheduler.jobs.values():
            if job.status is Status.EXPORTING and (work := self._works.get(job.job_id)):
                work.abandoned.set()
        while self._works:
            await asyncio.wait([work.task for work in self._works.values()])
        if self._alarm is not None:
            self._alarm.cancel()

    # Steps

    def apply(self, step: Step, *, also: Callable[[], None] | None = None) -> None:
        """Store a step, `also` within its transaction, and set it going.

        Raises sqlite3.Error if it cannot be stored; then it has not happened.
        """
        try:
            try:
                self._save(step, also)
            except sqlite3.OperationalError:
                if not self._reserve.release():
                    raise
                _log.warning("disk_reserve_released")
                self._save(step, also)
        except BaseException:
            self.scheduler.revert(step)
            raise
        said = {job_id: _said(job) for job_id, job in step.before.items()}
        if any(job.status in TERMINAL for job in step.changed):
            self._reserve.fill()
        for job in step.changed:
            if job.status in TERMINAL - RETRYABLE:
                self._forget_secrets(job.job_id)
            if _said(job) != said.get(job.job_id):
                said[job.job_id] = _said(job)
                self._board.announce(job)
                _log.info(
                    "job_changed",
                    job_id=job.job_id,
                    tenant_id=job.tenant_id,
                    status=job.status.name,
                    message=job.message,
                )
        for instruction in step.instructions:
            self._carry_out(instruction)
        self._set_alarm()

    def _forget_secrets(self, job_id: str) -> None:
        """Remove what a job was given that must not outlive it; the next start tries again."""
        try:
            self._secrets.forget(job_id)
        except OSError as error:
            _log.error("secrets_not_removed", job_id=job_id, reason=error.strerror)

    def _save(self, step: Step, also: Callable[[], None] | None) -> None:
        with self._store.transaction():
            self._store.save_jobs(step.newest().values())
            for job_id, job in step.newest().items():
                self._store.save_checkpoints(step.before[job_id], job)
            for node_id in step.drained:
                self._store.save_drain(node_id, self.scheduler.cluster.nodes[node_id].drain)
            if also is not None:
                also()

    async def _event(self, happen: Callable[[], Step]) -> None:
        """Apply a step that must come to pass, however long the disk is full."""
        while True:
            try:
                self.apply(happen())
            except sqlite3.OperationalError as error:
                _log.error("state_not_stored", reason=str(error))
                await asyncio.sleep(STORE_PAUSE)
            else:
                return

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        deadline = self.scheduler.next_deadline()
        if deadline is not None:
            delay = max((deadline - self._clock()) / 1e6, 0.0)
            self._alarm = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        try:
            self.apply(self.scheduler.tick())
        except sqlite3.OperationalError as error:
            _log.error("state_not_stored", reason=str(error))
            self._alarm = asyncio.get_running_loop().call_later(STORE_PAUSE, self._ring)

    # Instructions

    def notice(self, job_id: str) -> None:
        """A runner tells that a job's log or metrics have grown."""
        self._board.wake(job_id)
        if (work := self._works.get(job_id)) is not None:
            work.news.set()

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Prepare(job):
                self._begin(job, self._hands.prepare)
            case Launch(job):
                self._begin(job, self._hands.run)
            case Export(job):
                self._begin(job, self._hands.export)
            case Abandon(job_id):
                if (work := self._works.get(job_id)) is not None:
                    work.abandoned.set()
            case Stop(job, at_once):
                self._works[job.job_id].stop(signal.SIGUSR1 if at_once else signal.SIGTERM)

    def _begin(
        self,
        job: JobRecord,
        do: Callable[[JobRecord, Work], Coroutine[Any, Any, None]],
    ) -> None:
        """Do something for a job, behind what is being done for it already."""
        before = self._works.get(job.job_id)
        work = self._works[job.job_id] = Work()

        async def in_turn() -> None:
            try:
                if before is not None:
                    await asyncio.wait([before.task])
                await do(job, work)
            finally:
                current = self.scheduler.jobs.get(job.job_id)
                if current is None or current.status not in HOLDING:
                    self._workspace.release(job.job_id)
                if self._works.get(job.job_id) is work:
                    del self._works[job.job_id]

        work.task = asyncio.create_task(in_turn(), name=f"job {job.job_id} {job.status.name}")
        work.task.add_done_callback(_report)


def _said(job: JobRecord | None) -> tuple[Status, str] | None:
    return (job.status, job.message) if job is not None else None


def _report(task: asyncio.Task[None]) -> None:
    """A task that ends with an error is a defect: tell the operators."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("job_task_failed", task=task.get_name(), exc_info=error)
