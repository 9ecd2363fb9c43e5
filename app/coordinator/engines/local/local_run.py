"""A run of this machine, as its owner in the coordinator sees it."""

import asyncio
import signal
import time
from contextlib import suppress
from typing import Final

import structlog
from typing_extensions import override

from app.coordinator.engines.engine import Discard, NeverStarted, RunHandle
from app.coordinator.engines.local import launcher
from app.coordinator.engines.local.launcher import RunnerHandle
from app.coordinator.engines.local.run_killing import kill_run
from app.coordinator.engines.local.run_notes import leave_note, mark_said, notes_not_said
from app.coordinator.engines.local.run_orders import RunOrders
from app.coordinator.failures import LeadershipLost
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.job_directory import RunDir

#: Seconds that a runner may take beyond the grace of its processes, once it was asked to stop.
STOP_MARGIN: Final = 60.0

log = structlog.get_logger("scaimind.coordinator")


class LocalRun(RunHandle):
    """Follows a run's runner, and kills one that does not leave in time."""

    def __init__(
        self,
        directory: RunDir,
        runner: RunnerHandle | None,
        *,
        grace: float,
        orders: RunOrders,
    ) -> None:
        """`runner` is None for a run that has ended. It grants its processes `grace` seconds."""
        self._directory = directory
        self._runner = runner
        self._grace = grace
        self._orders = orders
        self._request: signal.Signals | None = None
        #: When it was first asked to stop, on the monotonic clock.
        self._asked_at: float | None = None
        self._asked = asyncio.Event()
        self._notes_size = 0

    @override
    def stop(self, *, at_once: bool, discard: Discard = Discard.NOTHING) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        self._request = signal.SIGUSR1 if at_once else signal.SIGTERM
        self._pass_on()
        self._asked.set()

    @override
    async def wait(self) -> RunEnd:
        while (runner := await self._living_runner()) is not None:
            self._pass_on()
            await self._until_gone(runner)
            self.close()
        self._orders.check()
        return await asyncio.to_thread(launcher.read_end, self._directory)

    @override
    async def say(self, text: str) -> bool:
        try:
            self._orders.check()
            return await asyncio.to_thread(leave_note, self._directory, text)
        except OSError as error:  # the line is said when the run has ended
            log.warning("note_not_left", job_id=self._job_id, reason=error.strerror)
            return False

    @override
    async def unsaid(self) -> list[str]:
        notes, self._notes_size = await asyncio.to_thread(notes_not_said, self._directory)
        return notes

    @override
    async def all_said(self) -> None:
        if self._notes_size:
            await asyncio.to_thread(mark_said, self._directory, self._notes_size)

    @override
    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    async def _living_runner(self) -> RunnerHandle | None:
        """Return the run's runner; one may have left because another was there before it."""
        if self._runner is None:
            self._orders.check()
            with suppress(NeverStarted):
                self._runner = await launcher.find(self._directory)
        return self._runner

    def _pass_on(self) -> None:
        """Send the runner what was asked for."""
        if self._runner is None or self._request is None:
            return
        try:
            self._orders.leave(self._request)
        except LeadershipLost as error:
            log.warning("runner_not_asked", job_id=self._job_id, reason=str(error))
            return
        except OSError as error:  # the signal alone is obeyed, too
            log.error("stop_not_noted", job_id=self._job_id, exc_info=error)
        try:
            self._runner.signal(self._request)
        except OSError as error:  # it is killed when it has not left in time
            log.error("runner_not_asked", job_id=self._job_id, exc_info=error)

    async def _until_gone(self, runner: RunnerHandle) -> None:
        gone = asyncio.create_task(runner.gone(), name=f"runner of {self._job_id}")
        asked = asyncio.create_task(self._asked.wait(), name=f"stop of {self._job_id}")
        try:
            await asyncio.wait([gone, asked], return_when=asyncio.FIRST_COMPLETED)
            if not gone.done() and self._asked_at is not None:
                left = self._asked_at + self._grace + STOP_MARGIN - time.monotonic()
                await asyncio.wait([gone], timeout=max(left, 0.0))
            if not gone.done():
                # A script may have stopped it.
                log.error("runner_overstayed", job_id=self._job_id)
                self._orders.check()
                await asyncio.to_thread(kill_run, self._directory)
            await gone
        finally:
            for task in (gone, asked):
                task.cancel()
            # Its descriptor may be waited for again.
            await asyncio.wait([gone, asked])

    @property
    def _job_id(self) -> str:
        return self._directory.job.path.name
