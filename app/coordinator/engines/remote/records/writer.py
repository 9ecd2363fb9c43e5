"""Writes what belongs into a job's log and metrics, one write behind the other."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import structlog

from app.coordinator.engines.local.runner.recording import RecordBounds
from app.coordinator.engines.remote.records.loops import LoopClosed, RecordLoops
from app.coordinator.engines.remote.records.merging import MergedRecords
from app.coordinator.failures import FailureBackoff, is_passing
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.storage.job_directory import RunDir

log = structlog.get_logger("scaimind.coordinator")
_T = TypeVar("_T")


class RecordWriter:
    """For one run. All of its writes are on one loop of their own, each of them without a pause,
    and so one behind the other. Nothing is lost on a full disk: a write waits for room."""

    def __init__(
        self,
        directory: RunDir,
        *,
        leadership: Leadership,
        bounds: RecordBounds,
        loops: RecordLoops,
        grew: Callable[[str], None],
    ) -> None:
        """`bounds` are those of runs on several nodes: of one, the node heeds them. `grew` is
        called with the job's id when its records have grown, on the loop that opens
        them."""
        self._directory = directory
        self._job_id = directory.job.path.name
        self._leadership = leadership
        self._bounds = bounds
        self._loops = loops
        self._loop = loops.take()
        self._grew = grew
        self._home: asyncio.AbstractEventLoop | None = None
        self._records: MergedRecords | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything can be written."""
        return self._records is not None

    @property
    def records(self) -> MergedRecords:
        """What is written, to be asked how far it is. Only while it is open."""
        assert self._records is not None
        return self._records

    async def open(self, node_ids: Sequence[str]) -> None:
        """Take up the records of a run on these nodes, once nobody else writes them.

        Raises OSError. The coordinator's own lines have the first of them.
        """
        self._home = asyncio.get_running_loop()
        bounds = self._bounds if len(node_ids) > 1 else RecordBounds()
        opening = self._home.run_in_executor(
            self._loops.opening,
            lambda: MergedRecords(self._directory, node_ids[0], bounds=bounds),
        )
        try:
            self._records = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # A thread cannot be cancelled, and whoever waits again needs the lock that it takes.
            opening.add_done_callback(_close_opened)
            raise

    async def close(self) -> None:
        """Let others write, once what is being written is."""
        try:
            await self.there(self._close)
        except LoopClosed:
            await self._close()

    async def _close(self) -> None:
        records, self._records = self._records, None
        if records is not None:
            records.close()

    async def there(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Have work done on the loop of the writes; returns or raises what it does."""
        return await self._loop.carry_out(work, name=f"records of {self._job_id}")

    async def say(self, text: str, *, warning: bool) -> None:
        """Write a line of the coordinator's own. Raises OSError."""
        await self.write(lambda records: records.say(text, warning=warning))
        self.tell()

    def tell(self) -> None:
        """Have it known that the records have grown. Any thread may call it."""
        assert self._home is not None
        self._home.call_soon_threadsafe(self._grew, self._job_id)

    async def write(self, write: Callable[[MergedRecords], _T]) -> _T:
        """Write on the loop of the writes, as `written` does."""
        return await self.there(lambda: self.written(write))

    async def written(self, write: Callable[[MergedRecords], _T]) -> _T:
        """Write, again and again while the disk is full. Only `there`. Raises OSError."""
        backoff = FailureBackoff()
        while True:
            records = self._records
            if records is None:
                raise OSError(9, "the run's records are closed")
            # A coordinator that was replaced while it stood still has the files open yet.
            self._leadership.check()
            try:
                return write(records)
            except OSError as error:
                if not is_passing(error):
                    raise
                problem = error
            seconds = backoff.after_failure()
            if backoff.worth_a_line:
                log.warning("records_not_written", job_id=self._job_id, reason=problem.strerror)
            await asyncio.sleep(seconds)


def _close_opened(opening: asyncio.Future[MergedRecords]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
