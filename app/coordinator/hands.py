"""What is done for a job: preparing it, running it, bringing its artefacts away."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from app.files.copying import Abandoned
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

from . import launcher
from .board import Board
from .checkpoints import CheckpointFinder
from .drive import BadUrl
from .jobdir import locked
from .jobdir_steps import NewerFormat, bring_up
from .launcher import NeverStarted, RunnerHandle
from .logs import LogWriter
from .metrics import MetricsReader, progress_of
from .records import Intent, JobRecord
from .run_spec import RunSpecs
from .scheduler import Scheduler
from .states import Status
from .steps import RunEnd, Step
from .workspace import Unprepared, Workspace

#: Seconds between two looks at what a run reports.
OBSERVE_INTERVAL: Final = 0.5

_log = structlog.get_logger("scaimind.coordinator")


@dataclass(slots=True, eq=False)
class Work:
    """One thing that is being done for a job."""

    task: asyncio.Task[None] = field(init=False)
    abandoned: threading.Event = field(default_factory=threading.Event)
    handle: RunnerHandle | None = None
    #: A signal for a runner that is not there yet.
    wanted: signal.Signals | None = None
    #: Something new was reported.
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, number: signal.Signals) -> None:
        """Send the run's runner a signal, now or as soon as it is there."""
        if self.handle is not None:
            self.handle.signal(number)
        else:
            self.wanted = number


class Hands:
    """Does for jobs what the scheduler decides, and tells it by `event` how that went."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        workspace: Workspace,
        board: Board,
        run_specs: RunSpecs,
        clock: Callable[[], int],
        event: Callable[[Callable[[], Step]], Awaitable[None]],
    ) -> None:
        self._scheduler = scheduler
        self._workspace = workspace
        self._board = board
        self._run_specs = run_specs
        self._clock = clock
        self._event = event

    async def prepare(self, job: JobRecord, work: Work) -> None:
        """Set the job's directory up."""
        job_id = job.job_id
        if work.abandoned.is_set():
            return
        if job.status is Status.SCHEDULING:
            await self._event(lambda: self._scheduler.preparing(job_id))
        try:
            await asyncio.to_thread(bring_up, self._workspace.directory(job_id))
            await asyncio.to_thread(self._workspace.prepare, job, work.abandoned)
        except Abandoned:
            return
        except (NewerFormat, Unprepared) as error:
            problem = str(error)
        except OSError as error:
            problem = f"Its directory could not be set up: {error.strerror}."
        else:
            problem = ""
        if problem and not work.abandoned.is_set():
            await self._say(job, problem)
        if work.abandoned.is_set():
            return
        if problem:
            await self._event(lambda: self._scheduler.preparation_failed(job_id, problem))
        else:
            await self._event(lambda: self._scheduler.prepared(job_id))

    async def find_run(self, job: JobRecord, work: Work) -> None:
        """Go on with a run that a former coordinator began."""
        directory = self._workspace.directory(job.job_id).run(job.run_count)
        try:
            # Where it fails, `_see_through` fails in the same way.
            with suppress(OSError):
                work.handle = await launcher.find(directory)
        except NeverStarted:
            await self.run(job, work)
        else:
            await self._see_through(job, work)

    async def run(self, job: JobRecord, work: Work) -> None:
        """Start the job's newest run, and follow it to its end."""
        try:
            work.handle = await asyncio.to_thread(self._launch, job)
        except (BadUrl, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            end = RunEnd(exit_code=None, failure=f"The run could not be started: {reason}.")
            await self._event(lambda: self._scheduler.run_ended(job.job_id, end))
        else:
            await self._see_through(job, work)

    async def _see_through(self, job: JobRecord, work: Work) -> None:
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
            with suppress(NeverStarted, OSError):
                work.handle = await launcher.find(directory)
        try:
            end = await asyncio.to_thread(launcher.read_end, directory)
        except OSError as error:
            reason = f"How the run was over cannot be told: {error.strerror}."
            end = RunEnd(exit_code=None, failure=reason, transient=True)
        await self._observe(job)
        await asyncio.to_thread(self._workspace.clear_temporary, job)
        if end.transient:
            await self._say(job, end.failure)
        await self._event(lambda: self._scheduler.run_ended(job.job_id, end))

    def _launch(self, job: JobRecord) -> RunnerHandle:
        directory = self._workspace.directory(job.job_id).run(job.run_count)
        spec = self._run_specs.of(job)
        spec["metrics_before"] = launcher.metrics_before(directory)
        return launcher.start(directory, spec)

    async def _follow(self, job: JobRecord, work: Work, handle: RunnerHandle) -> None:
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
        current = self._scheduler.jobs[job.job_id]

        def look() -> Callable[[], Step]:
            checkpoints = None
            # The tenant's own files: they may be in any state.
            with suppress(BadUrl, OSError):
                finder = CheckpointFinder(
                    keep=current.submission.output_config.max_checkpoints, clock=self._clock
                )
                checkpoints = self._workspace.checkpoints(current, finder)
            progress = None
            with suppress(FileNotFoundError), MetricsReader(self._metrics_path(job)) as reader:
                if (newest := reader.newest()) is not None:
                    progress = progress_of(newest, current.progress)
            return lambda: self._scheduler.observed(
                job.job_id, progress=progress, checkpoints=checkpoints
            )

        await self._event(await asyncio.to_thread(look))

    def _metrics_path(self, job: JobRecord) -> Path:
        return self._workspace.directory(job.job_id).metrics

    async def export(self, job: JobRecord, work: Work) -> None:
        """Bring the job's artefacts to their destination."""
        try:
            made = await asyncio.to_thread(self._workspace.export, job, work.abandoned)
        except Abandoned:
            if self._scheduler.jobs[job.job_id].intent is not Intent.CANCEL:
                # The coordinator stops: it is done again at the next start.
                return
            problem = "It was cancelled."
        except Unprepared as error:
            problem = str(error)
        except OSError as error:
            problem = f"Its artefacts could not be written: {error.strerror}."
        else:
            if made.left_out:
                await self._say(job, made.left_out)
            await self._say(job, f"The artefacts are at {made.url}.")
            if made.model_url:
                await self._say(job, f"The model is registered as {made.model_url}.")
            await self._event(lambda: self._scheduler.exported(job.job_id, made.url))
            return
        await self._say(job, problem)
        await self._event(lambda: self._scheduler.export_failed(job.job_id, problem))

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
