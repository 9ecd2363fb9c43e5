"""Drives the scheduler: stores each step, tells the watchers, and carries its instructions out."""

import asyncio
import signal
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

from . import launcher
from .board import Board
from .drive import BadUrl
from .jobdir import locked
from .launcher import NeverStarted, RunnerHandle
from .logs import LogWriter
from .metrics import MetricsReader, progress_of
from .records import Intent, JobRecord
from .scheduler import (
    Abandon,
    Export,
    Instruction,
    Launch,
    Prepare,
    RunEnd,
    Scheduler,
    Step,
    Stop,
)
from .states import RUNNING, Status
from .store import Store
from .workspace import Abandoned, Unprepared, Workspace

#: Seconds between two looks at what a run reports.
OBSERVE_INTERVAL: Final = 0.5
#: Seconds until a step that could not be stored is tried again.
STORE_PAUSE: Final = 1.0

_log = structlog.get_logger("scaimind.coordinator")


@dataclass(slots=True, eq=False)
class _Work:
    """What is being done for a job: preparing, a run, or exporting."""

    task: asyncio.Task[None] = field(init=False)
    abandoned: threading.Event = field(default_factory=threading.Event)
    handle: RunnerHandle | None = None
    #: A signal for a runner that is not there yet.
    wanted: signal.Signals | None = None
    #: Something new was reported.
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Controller:
    """The scheduler with hands. Everything runs on one event loop."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        store: Store,
        workspace: Workspace,
        board: Board,
        notify: Path,
        stop_grace: float,
        clock: Callable[[], int],
    ) -> None:
        self.scheduler = scheduler
        self._store = store
        self._workspace = workspace
        self._board = board
        self._notify = notify
        self._stop_grace = stop_grace
        self._clock = clock
        self._works: dict[str, _Work] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._closing = False

    # Life

    def start(self) -> None:
        """Take up what was stored: find runs again, go on with what was begun, then schedule."""
        jobs = self._store.unfinished()
        self.scheduler.restore(jobs)
        for job in jobs:
            if job.status in (Status.SCHEDULING, Status.PREPARING):
                self._begin(job, self._prepare)
            elif job.status in RUNNING:
                self._begin(job, self._find_run)
                if job.intent is not Intent.NONE:
                    self._carry_out(Stop(job, job.intent is Intent.PAUSE_NOW))
            elif job.status is Status.EXPORTING:
                self._begin(job, self._export)
        self.apply(self.scheduler.resume_scheduling())

    async def close(self) -> None:
        """Ask all runs to leave, and wait until they have; they go on at the next start."""
        self._closing = True
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
            with self._store.transaction():
                self._store.save_jobs(step.newest().values())
                for node_id in step.drained:
                    self._store.save_drain(node_id, self.scheduler.cluster.nodes[node_id].drain)
                if also is not None:
                    also()
        except BaseException:
            self.scheduler.revert(step)
            raise
        said = {job_id: _said(job) for job_id, job in step.before.items()}
        for job in step.changed:
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
                self._begin(job, self._prepare)
            case Launch(job):
                self._begin(job, self._run)
            case Export(job):
                self._begin(job, self._export)
            case Abandon(job_id):
                if (work := self._works.get(job_id)) is not None:
                    work.abandoned.set()
            case Stop(job, at_once):
                number = signal.SIGUSR1 if at_once else signal.SIGTERM
                work = self._works[job.job_id]
                if work.handle is not None:
                    work.handle.signal(number)
                else:
                    work.wanted = number

    def _begin(
        self,
        job: JobRecord,
        do: Callable[[JobRecord, "_Work"], Coroutine[Any, Any, None]],
    ) -> None:
        """Do something for a job, behind what is being done for it already."""
        before = self._works.get(job.job_id)
        work = self._works[job.job_id] = _Work()

        async def in_turn() -> None:
            try:
                if before is not None:
                    await asyncio.wait([before.task])
                await do(job, work)
            finally:
                if self._works.get(job.job_id) is work:
                    del self._works[job.job_id]

        work.task = asyncio.create_task(in_turn(), name=f"job {job.job_id} {job.status.name}")
        work.task.add_done_callback(_report)

    async def _prepare(self, job: JobRecord, work: _Work) -> None:
        job_id = job.job_id
        if work.abandoned.is_set():
            return
        if job.status is Status.SCHEDULING:
            await self._event(lambda: self.scheduler.preparing(job_id))
        try:
            await asyncio.to_thread(self._workspace.prepare, job, work.abandoned)
        except Abandoned:
            return
        except Unprepared as error:
            problem = str(error)
        except OSError as error:
            problem = f"Its directory could not be set up: {error.strerror}."
        else:
            problem = ""
        if work.abandoned.is_set():
            return
        if problem:
            await self._say(job, problem)
            await self._event(lambda: self.scheduler.preparation_failed(job_id, problem))
        else:
            await self._event(lambda: self.scheduler.prepared(job_id))

    async def _find_run(self, job: JobRecord, work: _Work) -> None:
        """Go on with a run that a former coordinator began."""
        directory = self._workspace.directory(job.job_id).run(job.run_count)
        try:
            work.handle = await launcher.find(directory)
        except NeverStarted:
            await self._run(job, work)
        else:
            await self._see_through(job, work)

    async def _run(self, job: JobRecord, work: _Work) -> None:
        try:
            work.handle = await asyncio.to_thread(self._launch, job)
        except (BadUrl, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            end = RunEnd(exit_code=None, failure=f"The run could not be started: {reason}.")
            await self._event(lambda: self.scheduler.run_ended(job.job_id, end))
        else:
            await self._see_through(job, work)

    async def _see_through(self, job: JobRecord, work: _Work) -> None:
        """Follow a run's runner to its end."""
        directory = self._workspace.directory(job.job_id).run(job.run_count)
        while work.handle is not None:
            if work.wanted is not None:
                work.handle.signal(work.wanted)
            try:
                await self._follow(job, work, work.handle)
            finally:
                work.handle.close()
                work.handle = None
            # It may have left because another runner of this run was there before it.
            with suppress(NeverStarted):
                work.handle = await launcher.find(directory)
        try:
            end = await asyncio.to_thread(launcher.read_end, directory)
        except OSError as error:
            reason = f"How the run was over cannot be told: {error.strerror}."
            end = RunEnd(exit_code=None, failure=reason, transient=True)
        await self._observe(job)
        if end.transient:
            await self._say(job, end.failure)
        await self._event(lambda: self.scheduler.run_ended(job.job_id, end))

    def _launch(self, job: JobRecord) -> RunnerHandle:
        directory = self._workspace.directory(job.job_id).run(job.run_count)
        spec = self._workspace.run_spec(job, notify=self._notify, grace=self._stop_grace)
        spec["metrics_before"] = launcher.metrics_before(directory)
        return launcher.start(directory, spec)

    async def _follow(self, job: JobRecord, work: _Work, handle: RunnerHandle) -> None:
        """Wait until a runner is gone, and take note of what it reports meanwhile."""
        gone = asyncio.create_task(handle.gone(), name=f"runner of {job.job_id}")
        try:
            while not gone.done():
                news = asyncio.create_task(work.news.wait(), name=f"news of {job.job_id}")
                await asyncio.wait([gone, news], return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                work.news.clear()
                if not gone.done():
                    await self._observe(job)
                    await asyncio.wait([gone], timeout=OBSERVE_INTERVAL)
            await gone
        finally:
            gone.cancel()

    async def _observe(self, job: JobRecord) -> None:
        current = self.scheduler.jobs[job.job_id]

        def look() -> Callable[[], Step]:
            checkpoints = None
            # The tenant's own files: they may be in any state.
            with suppress(BadUrl, OSError):
                checkpoints = self._workspace.checkpoints(current)
            progress = None
            with suppress(FileNotFoundError), MetricsReader(self._metrics_path(job)) as reader:
                if (newest := reader.newest()) is not None:
                    progress = progress_of(newest, current.progress)
            return lambda: self.scheduler.observed(
                job.job_id, progress=progress, checkpoints=checkpoints
            )

        await self._event(await asyncio.to_thread(look))

    def _metrics_path(self, job: JobRecord) -> Path:
        return self._workspace.directory(job.job_id).metrics

    async def _export(self, job: JobRecord, work: _Work) -> None:
        try:
            url = await asyncio.to_thread(self._workspace.export, job, work.abandoned)
        except Abandoned:
            if self._closing:
                # Done again at the next start.
                return
            problem = "It was cancelled."
        except Unprepared as error:
            problem = str(error)
        except OSError as error:
            problem = f"Its artefacts could not be written: {error.strerror}."
        else:
            await self._say(job, f"The artefacts are at {url}.")
            await self._event(lambda: self.scheduler.exported(job.job_id, url))
            return
        await self._say(job, problem)
        await self._event(lambda: self.scheduler.export_failed(job.job_id, problem))

    async def _say(self, job: JobRecord, text: str) -> None:
        """Add a line of the coordinator's to the log of a job that has no runner."""

        def write() -> None:
            directory = self._workspace.directory(job.job_id)
            entry = LogEntry(
                level=LogLevel.LOG_LEVEL_INFO,
                message=text,
                source="coordinator",
                node_id=job.node_ids[0] if job.node_ids else "",
            )
            entry.timestamp.FromMicroseconds(self._clock())
            with locked(directory.lock, wait=True):
                writer = LogWriter(directory.log)
                try:
                    writer.append([entry])
                finally:
                    writer.close()

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            _log.error("log_not_written", job_id=job.job_id, reason=error.strerror)
        self._board.wake(job.job_id)


def _said(job: JobRecord | None) -> tuple[Status, str] | None:
    return (job.status, job.message) if job is not None else None


def _report(task: asyncio.Task[None]) -> None:
    """A task that ends with an error is a defect: tell the operators."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("job_task_failed", task=task.get_name(), exc_info=error)
