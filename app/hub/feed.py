"""The driver of one job's feed: its upstream call, its flushes, its watchers' sockets."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import aclosing

import structlog

from app.errors import (
    COORDINATOR_ERROR,
    COORDINATOR_TIMEOUT,
    COORDINATOR_UNAVAILABLE,
    SHUTTING_DOWN,
    ApiError,
)
from app.hub import frames
from app.hub.close_reasons import CloseReason
from app.hub.connection import Closing
from app.hub.core import FeedCore
from app.hub.cursors import Cohort
from app.hub.flush_pacer import FlushPacer
from app.hub.history_budget import HistoryBudget
from app.hub.metrics_cohorts import MetricsCohorts
from app.hub.observer import HubObserver
from app.hub.outage import Outage
from app.hub.settings import HubSettings
from app.hub.subscribers import LogSubscriber
from app.hub.upstream import Batch, JobKey, LogPage, Position, Upstream, is_final
from app.tasks.backoff import Backoff
from app.tasks.single_flight import SingleFlight

log = structlog.get_logger()


class Feed:
    """Everything that the watchers of one job share.

    Owned by the hub. Lives while it is held, and `linger` seconds longer;
    then, or when its upstream has failed for good, `on_gone` is called once.
    """

    def __init__(
        self,
        key: JobKey,
        *,
        upstream: Upstream,
        settings: HubSettings,
        pacer: FlushPacer,
        observer: HubObserver,
        on_gone: Callable[["Feed"], None],
        budget: HistoryBudget,
    ) -> None:
        self.key = key
        self.settings = settings
        self.core: FeedCore[LogSubscriber] = FeedCore(
            history_bytes=settings.history_bytes, slice_bytes=settings.slice_bytes
        )
        self.log_watchers: set[LogSubscriber] = set()
        self.status = ""
        self.failure: ApiError | None = None
        self._upstream = upstream
        self._pacer = pacer
        self.observer = observer
        self._on_gone = on_gone
        self._budget = budget
        self.loop = asyncio.get_running_loop()
        self.metrics = MetricsCohorts(loop=self.loop, observer=observer)
        self._holders = 0
        self._closed = False
        self._history_size = 0
        self._linger_timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushed_at = float("-inf")
        #: How long the last flush took, in seconds of the loop's clock.
        self._flush_took = 0.0
        self._reads = SingleFlight[Hashable, LogPage]()
        self._outage = Outage(limit=settings.outage_limit, steady=settings.reconnect_max)
        #: When the upstream was lost; None while a stream has delivered everything there is.
        self._lost_at: float | None = None
        #: Whether the open stream has delivered everything that existed when it began.
        self._caught_up = False
        #: The newest entry that ever arrived. One that is behind it is progress.
        self._newest = Position("", 0)
        self._backoff = Backoff(shortest=settings.reconnect_min, longest=settings.reconnect_max)
        #: Done when the upstream is good and the history is filled, or when it has failed.
        self._opened: asyncio.Future[None] = self.loop.create_future()
        self._task = self.loop.create_task(self._run(), name=f"hub-feed-{key.job_id}")

    # Life

    @property
    def ended(self) -> bool:
        """Whether the job has ended and this feed has all of its log."""
        return self.core.end is not None

    def hold(self) -> None:
        """Keep the feed alive until `release`."""
        self._holders += 1
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def release(self) -> None:
        """Undo one `hold`."""
        self._holders -= 1
        if self._holders == 0 and not self._closed:
            self._linger_timer = self.loop.call_later(self.settings.linger, self._on_gone, self)

    async def opened(self) -> None:
        """Wait until the feed can be joined. Raises the upstream's `ApiError` if it failed."""
        try:
            async with asyncio.timeout(self.settings.open_timeout):
                await asyncio.shield(self._opened)
        except TimeoutError:
            raise ApiError(COORDINATOR_TIMEOUT) from None
        if self.failure is not None:
            raise self.failure

    async def aclose(self) -> None:
        """End the upstream call and all timers; watchers must have left or been closed."""
        self._closed = True
        for timer in (self._linger_timer, self._flush_timer):
            if timer is not None:
                timer.cancel()
        self.metrics.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._reads.close()
        if not self._opened.done():
            self.failure = ApiError(SHUTTING_DOWN, retry_after=1)
            self._opened.set_result(None)
        self._account(0)
        self._budget.forget(self)

    def close_all(self, closing: Closing) -> None:
        """Close all watchers' streams."""
        for watcher in list(self.log_watchers):
            watcher.connection.close(closing)
        for each in self.metrics.watchers():
            each.connection.close(closing)

    # Upstream

    async def _run(self) -> None:
        """Follow the job to its end, through breaks."""
        while True:
            try:
                await self._follow()
            except ApiError as error:
                if is_final(error.kind) or not self._opened.done():
                    self._fail(error)
                    return
                lost = error
            except Exception:
                log.exception("hub_feed_crashed", job_id=self.key.job_id)
                self._fail(ApiError(COORDINATOR_ERROR))
                return
            else:
                return
            now = self.loop.time()
            if self._lost_at is None:
                self._lost_at = now
                log.warning("hub_upstream_lost", job_id=self.key.job_id, code=lost.kind.code)
            if self._outage.broke_off(now, lost.kind):
                self._fail(lost)
                return
            await asyncio.sleep(self._backoff.pause())

    async def _follow(self) -> None:
        """Hold one upstream call until the job's log is complete. Raises if it breaks off."""
        self._caught_up = False
        self.observer.upstream_opened()
        try:
            batches = self._upstream.watch(
                self.key,
                after=self.core.position,
                tail=self.settings.history_tail,
                after_sequence=self.metrics.sequence(self.core.epoch),
            )
            async with aclosing(batches):
                started = False
                while (batch := await self._next(batches)) is not None:
                    if started == (batch.start is not None):
                        raise ApiError(COORDINATOR_ERROR)
                    started = True
                    self._take(batch)
                    if self.ended:
                        return
        finally:
            self.observer.upstream_closed()
        raise ApiError(COORDINATOR_UNAVAILABLE)

    async def _next(self, batches: AsyncIterator[Batch]) -> Batch | None:
        """Return the next batch; None at the end of the stream.

        A quiet job may be silent for any time, but not before its stream has
        delivered what there is: raises `ApiError` COORDINATOR_TIMEOUT.
        """
        limit = None if self._caught_up else self.settings.message_timeout
        try:
            async with asyncio.timeout(limit):
                return await anext(batches, None)
        except TimeoutError:
            raise ApiError(COORDINATOR_TIMEOUT) from None

    def _take(self, batch: Batch) -> None:
        core = self.core
        if batch.start is not None:
            self._flush()
            core.start(batch.start)
            self.status = batch.start.status
            if core.epoch != self._newest.epoch:
                # What another log held already is no progress.
                self._newest = Position(core.epoch, core.log_last)
        if batch.records:
            core.append(batch.records, self.loop.time())
            if core.last > self._newest.offset:
                self._newest = Position(core.epoch, core.last)
                self._outage.progressed()
                self._backoff.reset()
        if batch.snapshots:
            newest = batch.snapshots[-1]
            self.metrics.take(Position(core.epoch, newest.sequence), newest.data)
        for change in batch.statuses:
            self.status = change.status
            self.observer.status_changed(self.key, change)
        if batch.end is not None:
            self._flush()
            complete = core.finish(batch.end)
            if complete:
                self.status = batch.end.status
                self._finish()
        self._after_change()
        if core.last >= core.log_last:
            self._on_caught_up()
        if batch.end is not None and not self.ended:
            raise ApiError(COORDINATOR_ERROR)

    def _on_caught_up(self) -> None:
        """The stream has delivered everything that existed when it began."""
        if self._caught_up:
            return
        self._caught_up = True
        now = self.loop.time()
        self._outage.caught_up(now)
        if self._lost_at is not None:
            outage = round(now - self._lost_at, 3)
            log.info("hub_upstream_back", job_id=self.key.job_id, outage_seconds=outage)
            self._lost_at = None
        if not self._opened.done():
            # Only now is the history filled, and a tail what it should be.
            self._flush()
            self._opened.set_result(None)

    def _after_change(self) -> None:
        """After any change of the core: what it asks for."""
        core = self.core
        if core.anomalies:
            for kind in core.anomalies:
                self.observer.upstream_anomaly(kind)
            log.warning(
                "hub_upstream_anomaly", job_id=self.key.job_id, kinds=sorted(set(core.anomalies))
            )
            core.anomalies.clear()
        self._wake()
        self._account(core.history.size)
        if core.unflushed and self._flush_timer is None:
            # From when an entry is held back until the last watcher has it, it
            # takes an interval and a little, unless the writing takes most of it.
            interval = self._pacer.interval
            late = max(self._flush_took - interval / 8, 0.0)
            due = self._flushed_at + max(interval - late, interval / 2)
            if due <= self.loop.time():
                self._flush()
            else:
                self._flush_timer = self.loop.call_at(due, self._flush)

    def _wake(self) -> None:
        woken = self.core.woken
        for watcher in woken:
            watcher.pump_soon()
        woken.clear()

    def _account(self, size: int) -> None:
        change = size - self._history_size
        self._history_size = size
        if change:
            self._budget.account(self, change)

    @property
    def oldest_arrival(self) -> float | None:
        """When the oldest entry of the history arrived; None if the history is empty."""
        return self.core.history.oldest_arrival

    def evict_oldest(self) -> None:
        """Drop the part of the history that arrived first."""
        self.core.evict_oldest()
        self._account(self.core.history.size)

    def _fail(self, error: ApiError) -> None:
        """End for good: watchers are closed with the error, and a new watcher gets a new feed."""
        log.warning("hub_feed_failed", job_id=self.key.job_id, code=error.kind.code)
        self.failure = error
        self._closed = True
        if not self._opened.done():
            self._opened.set_result(None)
        self.close_all(Closing(CloseReason.UPSTREAM_FAILED, error.kind, not is_final(error.kind)))
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        self._on_gone(self)

    # Logs

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        core = self.core
        if not core.unflushed:
            return
        began = time.thread_time()
        now = self.loop.time()
        for cohort, payload in core.flush():
            if payload:
                cohort.announced_at = now
                self.observer.delivered("logs", len(payload) * len(cohort.members))
                self._broadcast(cohort, payload, now)
        spent = time.thread_time() - began
        self._flushed_at = now
        done = self.loop.time()
        self._flush_took = done - now
        self._pacer.record(spent, done)
        self.observer.flushed(spent, self._pacer.interval)
        self._wake()
        self._account(core.history.size)

    def _broadcast(self, cohort: Cohort[LogSubscriber], payload: bytes, now: float) -> None:
        """Write the same bytes to all members; whose socket is full falls behind."""
        data = frames.chunk(payload) if cohort.chunked else payload
        cohort.written_at = now
        full = [watcher for watcher in cohort.members if not watcher.connection.send_framed(data)]
        for watcher in full:
            self.core.fall_behind(watcher)

    def read_after(self, after: Position, level: int) -> "asyncio.Task[LogPage]":
        """Return the task that reads a page behind `after`, for all who ask meanwhile."""
        through = self.core.flushed
        return self._reads.start(
            (after, level),
            lambda: self._upstream.read_after(self.key, after, through=through, level=level),
            name=f"hub-read-{self.key.job_id}",
        )

    def read_tail(self, count: int, level: int) -> "asyncio.Task[LogPage]":
        """Return the task that reads the first page of a tail, for all who ask meanwhile."""
        through = self.core.flushed
        return self._reads.start(
            (count, through, level),
            lambda: self._upstream.read_tail(self.key, tail=count, through=through, level=level),
            name=f"hub-read-{self.key.job_id}",
        )

    async def answer(self, read: "asyncio.Task[LogPage]") -> LogPage:
        """Wait for a page. Raises `ApiError`, also when the feed is ended meanwhile."""
        try:
            return await asyncio.shield(read)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self.failure or ApiError(SHUTTING_DOWN, retry_after=1) from None

    # The end, and the regular round

    def _finish(self) -> None:
        """The log is complete: log watchers step to its end by themselves."""
        for each in self.metrics.watchers():
            each.pump()

    def sweep(self, now: float, wall: float) -> None:
        """Check quiet streams: keepalives, bookmarks, stalled clients, expired tokens."""
        settings = self.settings
        metrics_watchers = self.metrics.watchers()
        connections = [each.connection for each in self.log_watchers]
        connections += [each.connection for each in metrics_watchers]
        for connection in connections:
            connection.check(now, wall, write_timeout=settings.write_timeout)
        for cohort in list(self.core.cohorts.values()):
            if (
                cohort.announced < self.core.flushed
                and now - cohort.announced_at >= settings.bookmark_interval
            ):
                cohort.announced, cohort.announced_at = self.core.flushed, now
                self._broadcast(
                    cohort, frames.bookmark(Position(self.core.epoch, cohort.announced)), now
                )
            elif now - cohort.written_at >= settings.keepalive_interval:
                self._broadcast(cohort, frames.KEEPALIVE, now)
        quiet = [each.connection for each in (*self.core.behind, *self.core.ahead)]
        quiet += [each.connection for each in metrics_watchers]
        for connection in quiet:
            connection.keep_alive(now, settings.keepalive_interval)
        self._wake()
