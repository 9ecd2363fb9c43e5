"""A coordinator that answers the hub within its process, in pieces, late, in part or not at all."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from app.bridge.streams.log_pages import page_pieces
from app.bridge.streams.log_records import LogRecords
from app.caller import Caller
from app.errors import COORDINATOR_UNAVAILABLE, FAILED_PRECONDITION, ApiError
from app.hub.upstream import Batch, End, JobKey, LogPage, Position, Start, Upstream
from app.log_filter import LogFilter
from app.tasks.turns import Turns
from generated.mindcoordinator.v1.watch_pb2 import (
    ListJobLogsRequest,
    ListJobLogsResponse,
    LogLevel,
    LogPosition,
)
from tests.hub.random.job_log import Entry, EpochLog


@dataclass
class Job:
    """A job's logs: the one that it has, and those that it had, by epoch."""

    logs: dict[str, EpochLog]
    log: EpochLog
    ended: bool = False
    #: How many entries the open stream is to leave out next.
    leave_out: int = 0
    #: Grows when open streams are to break.
    breaks: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self) -> None:
        """Wake up whoever waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class RandomUpstream(Upstream):
    """Answers by chance; `calm` makes it answer everything at once and whole."""

    def __init__(self, rng: random.Random, *, turns: Turns, far: bool) -> None:
        """`far` has logs begin with offsets that have 18 digits."""
        self._rng = rng
        self._turns = turns
        self._base = 10**18 - 1_000_000 if far else 0
        self._records = LogRecords()
        self._tokens = 0
        self.jobs: dict[JobKey, Job] = {}
        #: Whether calls are refused.
        self.down = False
        self.calm = False
        #: Of 100 pages, how many fail.
        self.failing = 0

    def job(self, key: JobKey) -> Job:
        if key not in self.jobs:
            log = EpochLog("e0", self._base)
            self.jobs[key] = Job({"e0": log}, log)
        return self.jobs[key]

    # What happens to a job

    def grow(self, key: JobKey, count: int, size: Callable[[], int]) -> None:
        job = self.job(key)
        if job.ended:
            return
        for _ in range(count):
            self._tokens += 1
            rest = "abc"[self._tokens % 3] + "x" * size()
            token = f"{key.tenant_id}-{self._tokens}"
            job.log.entries.append(Entry(token, self._rng.randint(1, 4), rest))
        job.note()

    def begin_anew(self, key: JobKey) -> None:
        """Give the job a log of another epoch."""
        job = self.job(key)
        if not job.ended:
            job.log = EpochLog(f"e{len(job.logs)}", self._base)
            job.logs[job.log.epoch] = job.log
            self.break_streams(key)

    def cut_off(self, key: JobKey, count: int) -> None:
        job = self.job(key)
        if not job.ended:
            job.log.cut_off(max(job.log.last - count, job.log.base))
            self.break_streams(key)

    def break_streams(self, key: JobKey) -> None:
        job = self.job(key)
        job.breaks += 1
        job.leave_out = 0
        job.note()

    # The hub's upstream

    async def authorize(self, caller: Caller, job_id: str) -> None:
        await self._dawdle()

    async def watch(
        self,
        key: JobKey,
        *,
        after: Position | None,
        tail: int,
        after_sequence: int,
        request_id: str,
    ) -> AsyncGenerator[Batch, None]:
        job = self.job(key)
        await self._dawdle()
        if self.down:
            raise ApiError(COORDINATOR_UNAVAILABLE)
        log, breaks = job.log, job.breaks
        place = max(log.last - tail, log.first - 1)
        if after is not None and after.epoch == log.epoch and after.offset <= log.last:
            place = max(after.offset, log.first - 1)
        first = log.first if log.last else 0
        start: Start | None = Start(log.epoch, place, first, log.last, "TRAINING")
        while True:
            if job.breaks != breaks or self.down:
                raise ApiError(COORDINATOR_UNAVAILABLE)
            upto = log.last if self.calm else min(log.last, place + self._rng.randint(1, 40))
            if job.leave_out and not self.calm:
                place, job.leave_out = min(place + job.leave_out, log.last), 0
                upto = max(upto, place)
            entries = [log.message(n) for n in range(place + 1, upto + 1) if log.kept(n)]
            place = upto
            end = End("COMPLETED", log.last) if job.ended and place == log.last else None
            if start is not None or entries or end is not None:
                yield Batch(start=start, records=LogRecords().read(entries), end=end)
                start = None
                await self._dawdle()
            elif place == log.last:
                await job.changed.wait()
            if end is not None:
                return

    async def read_after(
        self, key: JobKey, after: Position, *, through: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        place = LogPosition(epoch=after.epoch, offset=after.offset)
        request = ListJobLogsRequest(after=place, through_offset=through)
        return await self._page(key, request, log_filter)

    async def read_tail(
        self, key: JobKey, *, tail: int, through: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        request = ListJobLogsRequest(tail=tail, through_offset=through)
        return await self._page(key, request, log_filter)

    async def read_before(
        self, key: JobKey, before: int, *, limit: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        request = ListJobLogsRequest(before_offset=before, page_size=limit)
        return await self._page(key, request, log_filter)

    async def count_snapshots(self, key: JobKey, *, request_id: str) -> int:
        return 0

    async def _page(
        self, key: JobKey, request: ListJobLogsRequest, log_filter: LogFilter
    ) -> LogPage:
        request.min_level = LogLevel.ValueType(log_filter.min_level)
        request.page_size = request.page_size or 1000
        await self._dawdle()
        if not self.calm and (self.down or self._rng.randrange(100) < self.failing):
            raise ApiError(COORDINATOR_UNAVAILABLE)
        job = self.job(key)
        if request.HasField("after") and request.after.epoch != job.log.epoch:
            raise ApiError(FAILED_PRECONDITION)
        most = request.page_size if self.calm else self._rng.choice((1, 3, 40, 1000))
        page = job.log.page(request, log_filter, most=min(most, request.page_size), ended=job.ended)
        data = page.SerializeToString()
        await self._dawdle()
        return await self._turns.run(
            page_pieces(
                data,
                request,
                log_filter,
                parse=ListJobLogsResponse.FromString,
                reader=self._records,
            )
        )

    async def _dawdle(self) -> None:
        for _ in range(0 if self.calm else self._rng.choice((0, 0, 1, 5, 40))):
            await asyncio.sleep(0)
