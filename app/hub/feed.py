"""One job's feed: what its upstream sends, its flushes, its watchers' sockets."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from typing_extensions import override

from app.errors import (
    COORDINATOR_ERROR,
    COORDINATOR_TIMEOUT,
    COORDINATOR_UNAVAILABLE,
    JOB_NOT_FOUND,
    SHUTTING_DOWN,
    ApiError,
)
from app.hub.close_reasons import CloseReason
from app.hub.connection import DELETED, Closing
from app.hub.core.cohorts import Cohort
from app.hub.core.feed_core import FeedCore
from app.hub.core.flush_pacer import FlushPacer, FlushTimes
from app.hub.core.history_budget import HistoryBudget
from app.hub.deletion import until_deleted
from app.hub.filters.judge import Judge
from app.hub.follower import Follower, Receiver
from app.hub.job_reads import JobReads
from app.hub.log_context import shared_context
from app.hub.metrics.cohorts import MetricsCohorts
from app.hub.observer import HubObserver
from app.hub.settings import HubSettings
from app.hub.subscribers import FeedListener, LogSubscriber
from app.hub.upstream import Batch, End, JobKey, Position, Upstream, is_final
from app.tasks.turns import Turns

log = structlog.get_logger()

A = TypeVar("A")


class Feed(Receiver):
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
        turns: Turns,
        observer: HubObserver,
        on_gone: Callable[["Feed"], None],
        budget: HistoryBudget,
        judge: Judge,
        request_id: str,
    ) -> None:
        self.key = key
        self.settings = settings
        self.core: FeedCore[LogSubscriber] = FeedCore(
            history_bytes=settings.history_bytes, slice_bytes=settings.slice_bytes
        )
        self.log_watchers: set[LogSubscriber] = set()
        #: In order of arrival: a dict for a set.
        self.listeners: dict[FeedListener, None] = {}
        self.status = ""
        self.failure: ApiError | None = None
        #: Whether the job has another log by now, which this feed will not follow.
        self.outdated = False
        self._pacer = pacer
        #: Of the watchers that are behind, of all feeds together.
        self.turns = turns
        self.observer = observer
        self._on_gone = on_gone
        self._budget = budget
        self.loop = asyncio.get_running_loop()
        self.metrics = MetricsCohorts(loop=self.loop, observer=observer)
        self._holders = 0
        self._request_id = request_id
        self._closed = False
        self._history_size = 0
        self._linger_timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushes = FlushTimes()
        self.reads = JobReads(key, upstream=upstream, judge=judge)
        #: Done when the upstream is good and the history is filled, or when it has failed.
        self._opened: asyncio.Future[None] = self.loop.create_future()
        #: Set when the log has become another one, or the feed has failed; then a new event.
        self._log_changed = asyncio.Event()
        self._follower = Follower(
            key,
            core=self.core,
            receiver=self,
            upstream=upstream,
            settings=settings,
            observer=observer,
            request_id=request_id,
        )
        self._task = self.loop.create_task(
            self._run(),
            name=f"hub-feed-{key.job_id}",
            context=shared_context(tenant_id=key.tenant_id, request_id=request_id),
        )

    # Life

    @property
    @override
    def ended(self) -> bool:
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
        await self.reads.close()
        if not self._opened.done():
            self.failure = ApiError(SHUTTING_DOWN, retry_after=1)
            self._opened.set_result(None)
        self._announce_other_log()
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
        try:
            error = await self._follower.run()
        except Exception:
            log.exception("hub_feed_crashed", job_id=self.key.job_id)
            error = ApiError(COORDINATOR_ERROR)
        if error is None:
            error = await until_deleted(
                self.reads,
                position=lambda: self.core.position,
                is_read=lambda: self._holders > 0,
                request_id=self._request_id,
            )
        self._fail(error)

    async def other_log(self) -> None:
        """Wait until the log has another epoch: the coordinator says that it has.

        Raises `ApiError` if the feed does not learn of it within `open_timeout` seconds, or
        cannot, since its own log has ended: it is outdated then.
        """
        if self.ended:
            self.outdated = True
            raise ApiError(COORDINATOR_UNAVAILABLE, retry_after=1)
        changed = self._log_changed
        self._follower.urge()
        try:
            async with asyncio.timeout(self.settings.open_timeout):
                await changed.wait()
        except TimeoutError:
            raise ApiError(COORDINATOR_TIMEOUT) from None
        if self.failure is not None:
            raise self.failure

    def _announce_other_log(self) -> None:
        self._log_changed.set()
        self._log_changed = asyncio.Event()

    @override
    def metrics_sequence(self) -> int:
        return self.metrics.sequence(self.core.epoch)

    @override
    def take(self, batch: Batch) -> None:
        core = self.core
        if batch.start is not None:
            self._flush()
            epoch = core.epoch
            core.start(batch.start)
            self.status = batch.start.status
            if core.epoch != epoch:
                self._announce_other_log()
        if batch.records:
            core.append(batch.records, self.loop.time())
        if batch.snapshots:
            newest = batch.snapshots[-1]
            self.metrics.take(Position(core.epoch, newest.sequence), newest.data)
            self._tell_listeners()
        for change in batch.statuses:
            self.status = change.status
            self.observer.status_changed(self.key, change)
        if batch.end is not None:
            self._flush()
            self.take_end(batch.end)
        self.on_change()

    @override
    def take_end(self, end: End) -> None:
        if self.core.finish(end):
            # Log watchers step to the end by themselves.
            self.status = end.status
            self.observer.jobs_changed(self.key.tenant_id)
            for each in self.metrics.watchers():
                each.pump()

    @override
    def on_caught_up(self) -> None:
        if not self._opened.done():
            # Only now is the history filled, and a tail what it should be.
            self._flush()
            self._opened.set_result(None)

    @override
    def on_change(self) -> None:
        """Do what a change of the core asks for."""
        core = self.core
        if core.anomalies:
            for kind in core.anomalies:
                self.observer.upstream_anomaly(kind)
            log.warning(
                "hub_upstream_anomaly", job_id=self.key.job_id, kinds=sorted(set(core.anomalies))
            )
            core.anomalies.clear()
        self._wake()
        if not core.unflushed:
            self._tell_listeners()
        self._account(core.history.size)
        if core.unflushed and self._flush_timer is None:
            due = self._flushes.due(self._pacer.interval)
            if due <= self.loop.time():
                self._flush()
            else:
                self._flush_timer = self.loop.call_at(due, self._flush)

    def _wake(self) -> None:
        woken = self.core.woken
        for watcher in woken:
            watcher.pump_soon()
        woken.clear()

    def _tell_listeners(self) -> None:
        for each in list(self.listeners):
            each.on_feed_changed()

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

    def job_deleted(self) -> None:
        """End for good: there is no such job any more, whatever of it is kept here."""
        self._fail(ApiError(JOB_NOT_FOUND))

    def _fail(self, error: ApiError) -> None:
        """End for good: watchers are closed with the error, and a new watcher gets a new feed."""
        if self.failure is not None:
            return
        closing = Closing(CloseReason.UPSTREAM_FAILED, error.kind, not is_final(error.kind))
        if error.kind is JOB_NOT_FOUND and self._opened.done():
            closing = DELETED
            log.info("hub_job_deleted", job_id=self.key.job_id)
        else:
            log.warning("hub_feed_failed", job_id=self.key.job_id, code=error.kind.code)
        self.failure = error
        self._closed = True
        if not self._opened.done():
            self._opened.set_result(None)
        self._announce_other_log()
        self.close_all(closing)
        self._tell_listeners()
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
        entries = core.last - core.flushed
        began = time.thread_time()
        now = self.loop.time()
        for cohort, payload in core.flush():
            if payload:
                cohort.announced_at = now
                self.observer.delivered("logs", len(payload) * len(cohort.members))
                self._broadcast(cohort, payload, now)
        cpu = time.thread_time()
        spent = cpu - began
        done = self.loop.time()
        self._flushes.flushed(now, done)
        self._pacer.record(spent, done, cpu=cpu, entries=entries)
        self.observer.flushed(spent, self._pacer.interval)
        self._wake()
        self._tell_listeners()
        self._account(core.history.size)

    def _broadcast(self, cohort: Cohort[LogSubscriber], payload: bytes, now: float) -> None:
        """Write the same bytes to all members; whose socket is full falls behind."""
        if not payload:
            return
        data = cohort.framed(payload)
        cohort.written_at = now
        full = [watcher for watcher in cohort.members if not watcher.connection.send_framed(data)]
        for watcher in full:
            self.core.fall_behind(watcher)

    async def answer(self, read: "asyncio.Task[A]") -> A:
        """Wait for one of `reads`. Raises `ApiError`, also when the feed is ended meanwhile."""
        try:
            return await asyncio.shield(read)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self.failure or ApiError(SHUTTING_DOWN, retry_after=1) from None

    # The regular round

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
                position = Position(self.core.epoch, cohort.announced)
                self._broadcast(cohort, cohort.form.bookmark(position), now)
            elif now - cohort.written_at >= settings.keepalive_interval:
                position = Position(self.core.epoch, cohort.announced)
                self._broadcast(cohort, cohort.form.keepalive(position), now)
        for watcher in (*self.core.behind, *self.core.ahead):
            alive = watcher.form.keepalive(self.core.position_of(watcher))
            watcher.connection.keep_alive(now, settings.keepalive_interval, alive)
        for each in metrics_watchers:
            each.connection.keep_alive(now, settings.keepalive_interval)
        self._wake()
