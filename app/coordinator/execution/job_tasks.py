"""The tasks of jobs, and what becomes of a job when its task fails.

A job has one task at a time; the next begins behind it. Here is who owns them:
whatever a task raises, the job goes on, ends, or is tried again. See
`failures` for the three classes.
"""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from app.coordinator.engines.engine import Discard, RunHandle
from app.coordinator.execution.coordinator_lines import CoordinatorLines
from app.coordinator.execution.observing import Observer
from app.coordinator.failures import CoordinatorStops, FailureBackoff, is_passing, reason_of
from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.states import HOLDING, RUNNING, Status
from app.coordinator.scheduling.scheduler import Scheduler, SchedulerEvent
from app.coordinator.scheduling.transitions import RunEnd
from app.tasks.patience import Patience

#: Seconds that a store has for what belongs to a job that is to end or to move, where the stop
#: grace does not say so.
STORE_PATIENCE: Final = 10.0
#: What of what a run wrote is dropped where the drive does not take it, by why the run is stopped.
#: Of the others everything is waited for.
_DISCARD: Final = {
    StopReason.CANCEL: Discard.LATE,
    StopReason.PAUSE_NOW: Discard.AT_ONCE,
    StopReason.MEMORY: Discard.AT_ONCE,
    StopReason.PREEMPT: Discard.UNTAKEN,
    StopReason.EVICT: Discard.UNTAKEN,
    StopReason.REQUEUE: Discard.UNTAKEN,
}

log = structlog.get_logger("scaimind.coordinator")


@dataclass(slots=True, eq=False)
class JobTask:
    """One thing that is being done for a job, and what was asked of it meanwhile."""

    task: asyncio.Task[None] = field(init=False)
    #: Seconds that a run has to stop.
    grace: float = math.inf
    abandoned: threading.Event = field(default_factory=threading.Event)
    #: The run, once it was launched or recovered.
    handle: RunHandle | None = None
    #: The run is to stop; if true, at once.
    stop_at_once: bool | None = None
    #: What of what it wrote is not waited for.
    discard: Discard = Discard.NOTHING
    _told: tuple[bool, Discard] | None = None
    #: With what a store has not answered.
    patience: Patience = field(default_factory=Patience)
    _ended: bool = False
    #: Looks at the run, from its first try on.
    observer: Observer | None = None
    #: Something new was reported or asked for.
    news: asyncio.Event = field(default_factory=asyncio.Event)
    #: Something was asked for: ends a pause between two tries.
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, *, at_once: bool, discard: Discard = Discard.NOTHING) -> None:
        """Ask the run to stop, now or as soon as it is there. Never raises."""
        self.stop_at_once, self.discard = at_once, discard
        if discard is Discard.LATE:
            self.patience.limit(self.grace)
        elif self.handle is None or (self._ended and discard is not Discard.NOTHING):
            self.patience.limit(min(STORE_PATIENCE, self.grace))
        self._wake()
        try:
            self.pass_on()
        except Exception as error:  # the task tries again, and what that raises is classified
            log.error("run_not_asked_to_stop", task=self.task.get_name(), exc_info=error)

    def pass_on(self) -> None:
        """Ask the run to stop, if that was asked for and the run was not told yet."""
        at_once = self.stop_at_once
        if self.handle is None or at_once is None or (at_once, self.discard) == self._told:
            return
        self.handle.stop(at_once=at_once, discard=self.discard)
        self._told = (at_once, self.discard)

    def has_begun(self) -> None:
        """Note that there is a run: what it wrote is waited for as it was asked for."""
        if self.handle is not None and self.discard is not Discard.LATE and not self._ended:
            self.patience.lift()

    def run_has_ended(self, ended: "asyncio.Task[RunEnd]") -> None:
        """Note that the run has ended: a store has a while for what it wrote, if it is to stop. One
        that could not be followed may live."""
        if ended.cancelled() or ended.exception() is not None:
            return
        self._ended = True
        if self.discard is not Discard.NOTHING:
            self.patience.limit(min(STORE_PATIENCE, self.grace))

    def end(self) -> None:
        """Let go of what it has."""
        if self.handle is not None:
            self.handle.close()
        self.patience.close()

    def abandon(self) -> None:
        """Cancel what can be cancelled. What a store keeps from noticing is left."""
        self.abandoned.set()
        self.patience.limit(min(STORE_PATIENCE, self.grace))
        self._wake()

    def _wake(self) -> None:
        self.news.set()
        self.asked.set()


#: Applies an event, however long it takes until it can be stored, unless it is void by then.
#: Raises CoordinatorStops, and what the event does.
Event = Callable[[SchedulerEvent, Callable[[], bool]], Awaitable[None]]

#: Does something for a job. What it raises is classified. It is called again after a failure that
#: passes, and must go on from where things are.
Do = Callable[[JobRecord, JobTask], Awaitable[None]]


class JobActions(Protocol):
    """What is done for jobs."""

    async def prepare(self, job: JobRecord, task: JobTask) -> None:
        """Set the job's directory up."""

    async def run(self, job: JobRecord, task: JobTask) -> None:
        """Carry the job's newest run to its end, from wherever it is."""

    async def export(self, job: JobRecord, task: JobTask) -> None:
        """Bring the job's artefacts to their destination."""

    async def kill_run(self, job: JobRecord, task: JobTask) -> None:
        """End the job's newest run by force: nothing of it lives afterwards."""

    async def release(self, job: JobRecord) -> None:
        """Let go of what was fetched for a job."""


class JobTasks:
    """Begins the tasks of jobs, and answers for them."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        actions: JobActions,
        lines: CoordinatorLines,
        event: Event,
        leave: asyncio.Event,
        stop_grace: float,
    ) -> None:
        """`leave` ends all pauses, with CoordinatorStops. A run has `stop_grace` seconds to
        stop."""
        self._scheduler = scheduler
        self._actions = actions
        self._lines = lines
        self._event = event
        self._leave = leave
        self._stop_grace = stop_grace
        self._tasks: dict[str, JobTask] = {}

    # Beginning

    def prepare(self, job: JobRecord) -> JobTask:
        """Begin to set the job's directory up."""
        return self._begin(job, "prepared", self._actions.prepare)

    def run(self, job: JobRecord) -> JobTask:
        """Begin the job's newest run, or take it up again."""
        return self._begin(job, "run", self._actions.run)

    def export(self, job: JobRecord) -> JobTask:
        """Begin to bring the job's artefacts to their destination."""
        return self._begin(job, "exported", self._actions.export)

    def give_up(self, job: JobRecord, problem: Exception) -> JobTask:
        """End a job that cannot be taken up again."""

        async def fail(job: JobRecord, task: JobTask) -> None:
            raise problem

        return self._begin(job, "taken up again", fail)

    def take_over(self, job: JobRecord, problem: Exception, again: Callable[[], None]) -> JobTask:
        """Own a failure outside of the job's task as if it were the task's.

        `again` tries what failed once more, after a pause, if it may pass.
        """
        problems = [problem]

        async def do(job: JobRecord, task: JobTask) -> None:
            if problems:
                raise problems.pop()
            again()

        return self._begin(job, "continued", do)

    def _begin(self, job: JobRecord, what: str, do: Do) -> JobTask:
        before = self._tasks.get(job.job_id)
        task = self._tasks[job.job_id] = JobTask(grace=self._stop_grace)
        task.task = asyncio.create_task(
            self._own(job, task, what, do, before), name=f"job {job.job_id} {job.status.name}"
        )
        return task

    # Asking

    def notify(self, job_id: str) -> None:
        """The job's log or metrics have grown."""
        if (task := self._tasks.get(job_id)) is not None:
            task.news.set()

    def stop(self, job: JobRecord, *, at_once: bool) -> None:
        """Ask the job's run to leave; a run without a task is taken up for it."""
        task = self._tasks.get(job.job_id) or self.run(job)
        discard = _DISCARD.get(job.stop_reason, Discard.NOTHING)
        task.stop(at_once=at_once, discard=discard)

    def abandon(self, job_id: str) -> None:
        """Cancel preparing or exporting a job; an export without a task is begun for it."""
        task = self._tasks.get(job_id)
        if task is None:
            job = self._scheduler.jobs.get(job_id)
            if job is None or job.status is not Status.EXPORTING:
                return
            task = self.export(job)
        task.abandon()

    async def settled(self, job_id: str) -> None:
        """Wait until no task is left of a job."""
        while (task := self._tasks.get(job_id)) is not None:
            await asyncio.wait([task.task])

    # Ending

    async def close(self, *, patience: float) -> None:
        """Wait until all tasks are over; those that are being tried again after `patience` seconds
        are left as they are."""
        timer = asyncio.get_running_loop().call_later(patience, self._leave_all)
        try:
            while self._tasks:
                await asyncio.wait([each.task for each in self._tasks.values()])
        finally:
            timer.cancel()

    def let_go(self) -> None:
        """Leave all jobs as they are, at once: their runners live on."""
        for each in self._tasks.values():
            each.abandon()
            each.task.cancel()

    def _leave_all(self) -> None:
        self._leave.set()
        for each in self._tasks.values():
            each.asked.set()

    # Owning

    async def _own(
        self, job: JobRecord, task: JobTask, what: str, do: Do, before: JobTask | None
    ) -> None:
        try:
            if before is not None:
                await asyncio.wait([before.task])
            await self._carry_through(job, task, what, do)
        except CoordinatorStops:
            log.warning("job_left_as_it_is", job_id=job.job_id, doing=what)
        finally:
            task.end()
            try:
                current = self._scheduler.jobs.get(job.job_id)
                if current is None or current.status not in HOLDING:
                    await self._release(job)
            finally:
                # Only now: a task that begins meanwhile waits for this one, and what it fetches
                # must not be let go of.
                if self._tasks.get(job.job_id) is task:
                    del self._tasks[job.job_id]

    async def _carry_through(self, job: JobRecord, task: JobTask, what: str, do: Do) -> None:
        """Do it until it is done, or settle the job."""
        backoff = FailureBackoff()
        while True:
            try:
                await do(job, task)
            except CoordinatorStops:
                raise
            except Exception as error:  # each of the classes has its own way, and none is dropped
                if not self._answers_for(job, task):
                    log.warning(
                        "job_task_failed", job_id=job.job_id, doing=what, void=True, exc_info=error
                    )
                    return
                if not is_passing(error):
                    await self._break_off(job, task, what, error)
                    return
                await self._try_again_later(job, task, what, error, backoff)
            else:
                return

    async def _try_again_later(
        self, job: JobRecord, task: JobTask, what: str, error: Exception, backoff: FailureBackoff
    ) -> None:
        """Pause before another try. Raises CoordinatorStops."""
        seconds = backoff.after_failure()
        if backoff.worth_a_line:
            log.warning(
                "job_has_to_wait",
                job_id=job.job_id,
                doing=what,
                failures=backoff.failures,
                exc_info=error,
            )
        if backoff.failures == 1 and self._may_say(job, task):
            text = f"The job cannot be {what} at the moment: {reason_of(error)}. Trying again."
            await self._lines.say(job, text)
        await self._pause(task, seconds, error)

    async def _break_off(self, job: JobRecord, task: JobTask, what: str, error: Exception) -> None:
        """End a job that cannot go on. Raises CoordinatorStops."""
        log.error("job_task_failed", job_id=job.job_id, doing=what, exc_info=error)
        reason = f"The job could not be {what}: {reason_of(error)}."
        backoff = FailureBackoff()
        killed = told = False
        while self._answers_for(job, task):
            try:
                if not killed and self._scheduler.jobs[job.job_id].status in RUNNING:
                    await self._actions.kill_run(job, task)
                killed = True
                if not told:
                    await self._lines.say(job, reason)
                told = True
                await self._event(
                    lambda scheduler: scheduler.broken_off(job.job_id, reason),
                    lambda: not self._answers_for(job, task),
                )
            except CoordinatorStops:
                raise
            except Exception as again:  # its resources may not be given away while it may live
                seconds = backoff.after_failure()
                if backoff.worth_a_line:
                    log.error(
                        "job_not_ended",
                        job_id=job.job_id,
                        failures=backoff.failures,
                        exc_info=again,
                    )
                await self._pause(task, seconds, again)

    async def _pause(self, task: JobTask, seconds: float, error: Exception) -> None:
        task.asked.clear()
        if self._leave.is_set():
            raise CoordinatorStops from error
        await pause(seconds, unless=task.asked)

    def _answers_for(self, job: JobRecord, task: JobTask) -> bool:
        """Whether the job holds resources, and no later task has it."""
        current = self._scheduler.jobs.get(job.job_id)
        return (
            current is not None
            and current.status in HOLDING
            and self._tasks.get(job.job_id) is task
        )

    def _may_say(self, job: JobRecord, task: JobTask) -> bool:
        """Whether nobody else writes the job's log."""
        return (
            self._answers_for(job, task) and self._scheduler.jobs[job.job_id].status not in RUNNING
        )

    async def _release(self, job: JobRecord) -> None:
        try:
            await self._actions.release(job)
        except CoordinatorStops:
            return
        except Exception as error:  # of the cache alone: it evicts what nobody holds at its start
            log.error("inputs_not_released", job_id=job.job_id, exc_info=error)


async def pause(seconds: float, *, unless: asyncio.Event) -> None:
    """Wait for some seconds, or until `unless` is set."""
    try:
        async with asyncio.timeout(seconds):
            await unless.wait()
    except TimeoutError:
        return
