"""The gateway's hub: watchers, feeds, the bound on all histories, and pages that are replayed."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from app.bridge.converters import to_json
from app.bridge.streams.log_pages import page_pieces
from app.bridge.streams.log_records import LogRecords
from app.cache.settings import CacheSettings
from app.cache.writer import JobWriter
from app.hub.core.cursors import Cursor
from app.hub.core.feed_core import FeedCore
from app.hub.core.history import History
from app.hub.core.history_budget import HistoryBudget
from app.hub.core.judging import ALL
from app.hub.observer import HubObserver
from app.hub.upstream import LogRecord, Start
from app.tasks.turns import Turns
from app.telemetry.metrics import Metrics
from generated.mindcoordinator.v1.watch_pb2 import (
    LOG_LEVEL_INFO,
    ListJobLogsRequest,
    ListJobLogsResponse,
    LogPosition,
)
from scripts.bench.converters import job
from scripts.bench.growth.row import Row, cpu

Measured = Iterator[Callable[[], float]]
_DATA: Final = b'{"level":"INFO","message":"step 1 of 2, loss 0.5, some more text"}'


class OneHistory:
    """A feed's history, as the bound on all of them sees it."""

    def __init__(self, budget: HistoryBudget, clock: Iterator[float]) -> None:
        self.history = History()
        self.history.clear("e1", 0)
        self._budget = budget
        self._clock = clock

    @property
    def oldest_arrival(self) -> float | None:
        """As `HistoryOwner` says."""
        return self.history.oldest_arrival

    def evict_oldest(self) -> None:
        """As `HistoryOwner` says."""
        before = self.history.size
        self.history.evict_oldest(self.history.last)
        self._budget.account(self, self.history.size - before)

    def take(self) -> None:
        """Take an entry."""
        before = self.history.size
        self.history.extend([LogRecord(self.history.last + 1, 2, _DATA)])
        self.history.mark(next(self._clock))
        self._budget.account(self, self.history.size - before)


def _clock() -> Iterator[float]:
    now = 0.0
    while True:
        now += 1.0
        yield now


@contextmanager
def histories(size: int, _: Path) -> Measured:
    """An entry of one of so many feeds, where all histories together are as long as they may be."""
    budget, clock = HistoryBudget(limit=size * 2_000, observer=HubObserver()), _clock()
    feeds = [OneHistory(budget, clock) for _ in range(size)]
    # Every feed has its share, and there is no room for more.
    for _turn in range(20):
        for feed in feeds:
            feed.take()
    turn = iter(range(10**9))
    yield cpu(lambda: feeds[next(turn) % size].take(), times=2_000)


@contextmanager
def replays(size: int, _: Path) -> Measured:
    """CPU time of a long turn of the event loop, of 20 the longest, while so many pages are read:
    how long live entries wait for it."""
    page = ListJobLogsResponse(epoch="e1", next_after_offset=1_000, last_offset=1_000)
    for number in range(1_000):
        page.entries.add(offset=number + 1, level=LOG_LEVEL_INFO, message="step 1, loss 0.5")
    data = page.SerializeToString()

    async def turns() -> float:
        own = Turns()
        pages = [
            asyncio.create_task(
                own.run(
                    page_pieces(
                        data,
                        ListJobLogsRequest(after=LogPosition(epoch="e1")),
                        ALL,
                        parse=ListJobLogsResponse.FromString,
                        reader=LogRecords(),
                    )
                )
            )
            for _ in range(size)
        ]
        lasted = []
        while not all(page.done() for page in pages):
            began = time.process_time()
            await asyncio.sleep(0)
            lasted.append(time.process_time() - began)
        return quantiles(lasted, n=20)[-1]

    yield lambda: asyncio.run(turns())


class Live(Cursor):
    """A watcher without a socket."""


@contextmanager
def watchers(size: int, _: Path) -> Measured:
    """An entry's way to each of so many live watchers, without their sockets."""
    core: FeedCore[Live] = FeedCore(history_bytes=1 << 20, slice_bytes=1 << 16)
    core.start(Start(epoch="e1", after_offset=0, first_offset=1, last_offset=0, status="TRAINING"))
    for _member in range(size):
        live = Live(log_filter=ALL)
        core.join(live, 0)
        while not live.live:
            core.next(live, 0.0)
    measure = cpu(lambda: _flush(core), times=20)
    yield lambda: measure() / size


def _flush(core: FeedCore[Live]) -> None:
    core.append([LogRecord(core.last + 1, 2, _DATA)], 0.0)
    for cohort, payload in core.flush():
        for member in cohort.members:
            member.offset += bool(payload)


class NoDatabase:
    """Takes every statement at once."""

    async def take(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """As `Database` says."""
        return []

    async def write(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """As `Database` says."""


@contextmanager
def cache_writer(size: int, _: Path) -> Measured:
    """A job on its way to the job cache, of so many that are listed at once; none is dropped."""
    told = to_json(job())

    async def write() -> float:
        metrics = Metrics()
        settings = CacheSettings(flush_interval=0.0)
        writer = JobWriter(
            database=NoDatabase(), settings=settings, metrics=metrics, clock=time.monotonic
        )
        began = time.process_time()
        for number in range(size):
            writer.record_job("t", {**told, "job_id": f"job-{number}"})
        await writer.close()
        spent = time.process_time() - began
        # What is not written was dropped: that is no cost which could be compared.
        written = f"scaimind_cache_written_jobs_total {size:.1f}".encode()
        return spent / size if written in lines_of(metrics) else math.inf

    yield lambda: asyncio.run(write())


def lines_of(metrics: Metrics) -> list[bytes]:
    """The lines of the metrics, without their descriptions."""
    text, _ = metrics.render("")
    return [line for line in text.splitlines() if not line.startswith(b"#")]


ROWS: Final = (
    Row("cache-writer", "jobs at once", (100, 1_000, 10_000), 0.1, cache_writer),
    Row("watchers", "watchers", (1_000, 5_000, 20_000), 0.1, watchers),
    Row("histories", "feeds", (100, 500, 2_000), 0.25, histories),
    Row("replays", "pages", (20, 50, 100), 0.2, replays),
)
