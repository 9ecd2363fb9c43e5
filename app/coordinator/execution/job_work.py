"""What is done for a job: preparing it, running it, bringing its artefacts away.

What fails is classified by `job_tasks`. Each of these can be begun again
after a failure that passes, and goes on from where things are.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog

from app.coordinator.data.drive import BadUrl
from app.coordinator.engines.engine import CannotLaunch, Engine, NeverStarted, RunHandle
from app.coordinator.execution.checkpoints import CheckpointFinder
from app.coordinator.execution.coordinator_lines import CoordinatorLines
from app.coordinator.execution.job_tasks import Event, JobTask
from app.coordinator.execution.observing import Look, Observer
from app.coordinator.execution.preparation import Unprepared
from app.coordinator.execution.run_spec import RunSpecs
from app.coordinator.execution.workspace import Workspace
from app.coordinator.failures import LeadershipLost, is_disk_full, is_passing
from app.coordinator.jobs.model import JobRecord, Kind, StopReason
from app.coordinator.jobs.states import Status
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.leadership.while_leading import WhileLeading
from app.coordinator.metrics.snapshots import MetricsReader, progress_of, stalled_seconds
from app.coordinator.scheduling.scheduler import Scheduler, SchedulerEvent
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.disk_reserve import DiskReserve
from app.coordinator.storage.job_directory_steps import NewerFormat, bring_up
from app.files.copying import Abandoned
from app.tasks.ending import end_all
from app.tasks.patience import PatienceOver

#: Seconds between two looks at what a run reports.
OBSERVE_INTERVAL: Final = 0.5
#: Seconds after which a run is looked at though nothing is new: directories tell nobody.
LOOK_ANYWAY: Final = 10.0
#: Preparations at the same time; they may copy or install for hours, or wait for one another. Where
#: more jobs can be at once there are as many: none waits for those of others.
_PREPARING: Final = 32
#: Calls of a store at the same time, of those that are short where it answers.
_ASKING: Final = 32
#: Exports at the same time, apart from those: how long one takes is up to its job, which may leave
#: files of terabytes of holes behind. Where more jobs can be at once there are as many.
_EXPORTING: Final = 32

#: How the job's log calls them.
_CHECKPOINTS: Final = "Its checkpoints"
#: What it says where a store has not answered when the run had to give its nodes back.
_NOT_COUNTED: Final = (
    "Checkpoints that were not complete in the drive do not count: it has not answered in time."
)

log = structlog.get_logger("scaimind.coordinator")
_T = TypeVar("_T")


def never() -> bool:
    """Of a change that cannot become void."""
    return False


class JobWork:
    """Does for jobs what the scheduler decides, and tells it by `event` how that went."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        workspace: Workspace,
        run_specs: RunSpecs,
        lines: CoordinatorLines,
        reserve: DiskReserve,
        engine: Engine,
        leadership: Leadership,
        clock: Callable[[], int],
        event: Event,
    ) -> None:
        self._scheduler = scheduler
        self._workspace = workspace
        self._run_specs = run_specs
        self._lines = lines
        self._reserve = reserve
        self._engine = engine
        self._leadership = leadership
        self._clock = clock
        self._event = event
        most_jobs = 2 * sum(node.spec.cpus for node in scheduler.cluster.nodes.values())
        preparations = max(_PREPARING, most_jobs)
        self._preparing = ThreadPoolExecutor(preparations, thread_name_prefix="preparing")
        exports = max(_EXPORTING, most_jobs)
        self._exporting = ThreadPoolExecutor(exports, thread_name_prefix="exporting")
        # One for all jobs: looking is never urgent. A store that is away holds up only such looks.
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="looking")
        self._asking = ThreadPoolExecutor(_ASKING, thread_name_prefix="asking")
        # What asks a store does not take the threads of what does not.
        self._store_threads = self._asking if workspace.asks_store else None
        # A checkpoint may have millions of files: no look must wait for that.
        self._removing = ThreadPoolExecutor(1, thread_name_prefix="removing")

    def close(self) -> None:
        """Let the threads go; call when no task is left."""
        self._preparing.shutdown(wait=False)
        self._exporting.shutdown(wait=False)
        self._looking.shutdown(wait=False)
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._removing.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, job: JobRecord, task: JobTask) -> None:
        """Set the job's directory up. Raises OSError, and whatever its files bring about."""
        job_id = job.job_id
        void = task.abandoned.is_set
        if void():
            return
        if self._scheduler.jobs[job_id].status is Status.SCHEDULING:
            await self._event(lambda scheduler: scheduler.preparing(job_id), void)
        try:
            await self._in(self._preparing, bring_up, self._workspace.directory(job_id))
            say = self._lines.from_thread(job)
            wanted = self._wanted(task)
            work = self._in(self._preparing, self._workspace.prepare, job, say, wanted)
            await self._unless_given_up(task, work)
        except Abandoned:
            await self._clear_temporary(job)
            return
        except NewerFormat as error:
            problem = str(error)
        except Unprepared as error:
            problem = str(error)
            await self._clear_temporary(job)
        else:
            await self._event(lambda scheduler: scheduler.prepared(job_id), void)
            return
        if not void():
            await self._lines.say(job, problem)
        await self._event(lambda scheduler: scheduler.preparation_failed(job_id, problem), void)

    async def run(self, job: JobRecord, task: JobTask) -> None:
        """Carry the job's newest run to its end, whether it was begun already or not.

        Raises OSError, and whatever its files bring about.
        """
        try:
            task.handle = task.handle or await self._begin_run(job, task)
            task.has_begun()
        except CannotLaunch as error:
            end = RunEnd(exit_code=None, failure=f"The run could not be started: {error}.")
            await self._lines.say(job, end.failure)
        else:
            end = await self._follow(job, task)
            if end.transient:
                await self._lines.say(job, end.failure)
        await self._event(lambda scheduler: scheduler.run_ended(job.job_id, end), never)

    async def _begin_run(self, job: JobRecord, task: JobTask) -> RunHandle | None:
        """Return the run, launched unless it was before; None if nobody wants it anymore.

        Raises CannotLaunch, OSError.
        """
        self._leadership.check()
        with suppress(NeverStarted):
            return await self._engine.recover(job, term=self._leadership.term)
        if task.stop_at_once is not None:
            # It was tried before, in vain.
            return None
        try:
            work = self._in(self._store_threads, self._run_specs.of, job)
            spec = await self._unless_given_up(task, work)
        except BadUrl as error:
            raise CannotLaunch(str(error)) from None
        except Abandoned:
            return None
        return await self._engine.launch(job, spec)

    async def _follow(self, job: JobRecord, task: JobTask) -> RunEnd:
        """Wait until the run has ended, and take note of what it reports meanwhile."""
        if (handle := task.handle) is None:
            return RunEnd(exit_code=None, stopped=True)
        observer = task.observer = task.observer or self._observer(job)
        ended = asyncio.create_task(handle.wait(), name=f"run of {job.job_id}")
        ended.add_done_callback(task.run_has_ended)
        try:
            while not ended.done():
                task.pass_on()
                await self._news(task, ended)
                if not ended.done():
                    with suppress(Abandoned):
                        await self._unless_given_up(task, observer.look())
                    await _say(observer.notes, handle)
                    await asyncio.wait([ended], timeout=OBSERVE_INTERVAL)
            end = await ended
        finally:
            # The run may be waited for again.
            await end_all([ended], expected=Exception)  # it is raised here, or another one is
        observer.note(await self._run_over(job, task))
        with suppress(Abandoned):
            await self._unless_given_up(task, observer.look(last=True))
        for text in await handle.unsaid():
            await self._lines.say(job, text)
        await handle.all_said()
        while observer.notes:
            await self._lines.say(job, observer.notes.pop(0))
        await self._clear_temporary(job)
        return end

    async def _run_over(self, job: JobRecord, task: JobTask) -> list[str]:
        """Have what a run has written count before its end does; returns what the job's log is to
        say. Raises OSError, LeadershipLost."""
        self._leadership.check()
        try:
            work = self._in(self._store_threads, self._workspace.run_over, job)
            return await self._unless_given_up(task, work)
        except (Abandoned, OSError) as error:
            cancelled = self._scheduler.jobs[job.job_id].stop_reason is StopReason.CANCEL
            if isinstance(error, OSError) and not (cancelled or task.patience.is_over):
                raise
            # Nobody goes on from it, or waits for it.
            reason = str(error) or "the drive has not answered in time"
            log.warning("parts_not_merged", job_id=job.job_id, reason=reason)
            return [] if cancelled else [_NOT_COUNTED]

    async def _news(self, task: JobTask, ended: asyncio.Task[RunEnd]) -> None:
        """Wait until something is new, the run has ended, or it is time to look."""
        news = asyncio.create_task(task.news.wait(), name=f"news of {task.task.get_name()}")
        try:
            await asyncio.wait(
                [ended, news], timeout=LOOK_ANYWAY, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            news.cancel()
        task.news.clear()

    def _observer(self, job: JobRecord) -> Observer:
        return Observer(
            job.job_id,
            parts={
                "Its metrics": self._look_at_progress(job),
                _CHECKPOINTS: self._look_at_checkpoints(job),
            },
            executor=self._looking,
            apart={_CHECKPOINTS: self._store_threads} if self._store_threads else {},
            event=lambda change: self._event(change, never),
        )

    def _look_at_progress(self, job: JobRecord) -> Look:
        def look(notes: list[str], *, last: bool) -> SchedulerEvent:
            progress = stalled = None
            current = self._scheduler.jobs[job.job_id]
            directory = self._workspace.directory(job.job_id)
            with suppress(FileNotFoundError), MetricsReader(directory.metrics) as reader:
                if (newest := reader.newest()) is not None:
                    progress = progress_of(newest, current.progress)
                    stalled = stalled_seconds(newest, since=current.run_started_at)
            return lambda scheduler: scheduler.observed(
                job.job_id, progress=progress, stalled=stalled
            )

        return look

    def _look_at_checkpoints(self, job: JobRecord) -> Look:
        finder = CheckpointFinder(
            keep=job.submission.output_config.max_checkpoints, clock=self._clock
        )

        removal: Future[None] | None = None

        def look(notes: list[str], *, last: bool) -> SchedulerEvent:
            nonlocal removal
            checkpoints = None
            # It removes those that are too many.
            self._leadership.check()
            # The tenant's own files: they may be in any state.
            with suppress(BadUrl, FileNotFoundError, NotADirectoryError):
                checkpoints = self._workspace.checkpoints(
                    self._scheduler.jobs[job.job_id], finder, last=last
                )
            notes += finder.notes
            finder.notes.clear()
            if finder.leftovers and (removal is None or removal.done()):
                removal = self._removing.submit(self._remove_leftovers, job)
            return lambda scheduler: scheduler.observed(job.job_id, checkpoints=checkpoints)

        return look

    def _remove_leftovers(self, job: JobRecord) -> None:
        self._leadership.check()
        try:
            self._workspace.remove_leftovers(job)
        except (BadUrl, OSError) as error:
            # The next look or the next run finds them again.
            log.warning("checkpoints_not_removed", job_id=job.job_id, reason=str(error))

    async def _clear_temporary(self, job: JobRecord) -> None:
        try:
            await asyncio.to_thread(self._led(self._workspace.clear_temporary), job)
        except LeadershipLost:
            raise
        except Exception as error:  # what is left takes up space, until the job runs again
            log.warning("temporary_files_left", job_id=job.job_id, exc_info=error)

    async def kill_run(self, job: JobRecord, task: JobTask) -> None:
        """End the job's newest run by force: nothing of it lives afterwards.

        Raises OSError, LeadershipLost, and whatever its files bring about.
        """
        self._leadership.check()
        await self._engine.kill(job.job_id, term=self._leadership.term)
        if task.handle is not None:
            task.handle.close()
            task.handle = None

    async def export(self, job: JobRecord, task: JobTask) -> None:
        """Bring the job's artefacts to their destination. Raises OSError, and whatever its files
        bring about."""
        try:
            work = self._in(self._exporting, self._workspace.export, job, self._wanted(task))
            made = await self._unless_given_up(task, work)
        except Abandoned:
            if self._scheduler.jobs[job.job_id].stop_reason is not StopReason.CANCEL:
                # The coordinator stops: it is done again at the next start.
                return
            problem = "It was cancelled."
        except Unprepared as error:
            problem = str(error)
        except OSError as error:
            # Where the coordinator's own disk has room, the artefacts are too large for theirs.
            if is_passing(error) and not (is_disk_full(error) and self._reserve.has_room()):
                raise
            problem = f"Its artefacts could not be written: {error.strerror}."
        else:
            if made.left_out:
                await self._lines.say(job, made.left_out)
            await self._lines.say(job, f"The artefacts are at {made.url}.")
            if made.model_url:
                await self._lines.say(job, f"The model is registered as {made.model_url}.")
            await self._event(lambda scheduler: scheduler.exported(job.job_id, made.url), never)
            if self._scheduler.jobs.get(job.job_id) is None and job.kind is Kind.TRAINING:
                await self._drop_output(job)
            return
        await self._lines.say(job, problem)
        await self._event(lambda scheduler: scheduler.export_failed(job.job_id, problem), never)

    async def _drop_output(self, job: JobRecord) -> None:
        """Keep a job's artefacts once: they are at their destination."""
        try:
            await self._in(self._exporting, self._workspace.drop_output, job)
        except Exception as error:  # the retention does it once more
            log.warning("artefacts_kept_twice", job_id=job.job_id, exc_info=error)

    def _wanted(self, task: JobTask) -> WhileLeading:
        return WhileLeading(task.abandoned, self._leadership)

    async def _in(
        self, threads: ThreadPoolExecutor | None, do: Callable[..., _T], *given: Any
    ) -> _T:
        """Do something with files in a thread, unless this coordinator no longer leads by then.
        Raises what it does, LeadershipLost."""

        return await asyncio.get_running_loop().run_in_executor(threads, self._led(do), *given)

    async def _unless_given_up(self, task: JobTask, work: Coroutine[Any, Any, _T]) -> _T:
        """Await what a store may hold up, unless nobody waits for that any more: raises Abandoned
        then, and a thread is left to find that out."""
        if not self._workspace.asks_store:
            return await work
        try:
            return await task.patience.wait_for(work, name=f"drive for {task.task.get_name()}")
        except PatienceOver:
            raise Abandoned from None

    def _led(self, do: Callable[..., _T]) -> Callable[..., _T]:
        """Return what does so if this coordinator leads by then, and raises LeadershipLost else."""

        def led(*given: Any) -> _T:
            self._leadership.check()
            return do(*given)

        return led

    async def release(self, job: JobRecord) -> None:
        """Let go of what was fetched for a job."""
        # There may be very many files of it. Not behind what is being prepared or exported.
        await asyncio.to_thread(self._led(self._workspace.release), job.job_id)


async def _say(notes: list[str], handle: RunHandle) -> None:
    """Have the run say what is noted, and take that out of the notes."""
    while notes and await handle.say(notes[0]):
        del notes[0]
