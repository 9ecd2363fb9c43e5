"""The hub: one feed per job, however many watch it, and the bounds over all of them."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import structlog

from app.caller import Caller
from app.errors import RATE_LIMITED, SHUTTING_DOWN, ApiError
from app.hub.close_reasons import CloseReason
from app.hub.connection import EXPIRED, Connection, drained
from app.hub.feed import Feed
from app.hub.flush_pacer import FlushPacer
from app.hub.log_watcher import LogWatcher
from app.hub.metrics_watcher import MetricsWatcher
from app.hub.observer import HubObserver
from app.hub.settings import HubSettings
from app.hub.socket_pool import SocketPool
from app.hub.upstream import JobKey, Position, Upstream

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Seat:
    """A watcher's share of the limits, and its hold on a feed."""

    caller: Caller
    kind: str
    #: What it is counted under.
    groups: tuple[tuple[str, ...], ...]
    feed: Feed
    #: When it was taken, in seconds of the loop's clock.
    since: float
    #: Whether a watcher sits on it; else it is to be given back.
    occupied: bool = False


class Hub:
    """Owns all feeds of a process. Made and closed within one event loop."""

    #: How often quiet streams are looked after, in seconds.
    SWEEP = 0.5
    #: What a client that met a limit is told to wait, in seconds.
    RETRY_AFTER = 10

    def __init__(
        self,
        *,
        upstream: Upstream,
        settings: HubSettings,
        observer: HubObserver | None = None,
    ) -> None:
        self._upstream = upstream
        self._settings = settings
        self._observer = observer or HubObserver()
        self._loop = asyncio.get_running_loop()
        self._pacer = FlushPacer(
            shortest=settings.flush_min,
            longest=settings.flush_max,
            share=settings.flush_share,
            now=self._loop.time(),
        )
        self._sockets = SocketPool()
        self._feeds: dict[JobKey, Feed] = {}
        self._history_size = 0
        self._closing = False
        #: Watchers by what they are counted under: everything, a tenant, a user.
        self._counts: Counter[tuple[str, ...]] = Counter()
        #: Of all watchers that have joined.
        self.connections: set[Connection] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._authorizations: dict[tuple[str, str | None, str], asyncio.Task[None]] = {}
        #: Feeds on their way out.
        self._ending: set[asyncio.Task[None]] = set()
        self._sweeper = self._loop.create_task(self._sweep(), name="hub-sweeper")

    async def watch_logs(
        self,
        caller: Caller,
        job_id: str,
        *,
        level: int,
        chunked: bool,
        tail: int,
        after: Position | None,
        follow: bool,
    ) -> LogWatcher | None:
        """Join a job's log; the caller starts the watcher on a socket, or closes it.

        It begins with the `tail` newest entries of `level` and above, or behind
        `after`. None if the client has everything of a job that ended. Raises
        `ApiError`.
        """
        seat = await self._seat(caller, job_id, "logs")
        connection = Connection(caller=caller, chunked=chunked, pool=self._sockets)
        watcher = LogWatcher(feed=seat.feed, connection=connection, level=level)
        try:
            if not await watcher.join(tail=tail, after=after, follow=follow):
                return None
            self._check_alive(seat.feed)
            seat.feed.log_watchers.add(watcher)
            self._occupy(seat, watcher)
            return watcher
        finally:
            if not seat.occupied:
                watcher.leave()
                self._give_back(seat)

    async def watch_metrics(
        self,
        caller: Caller,
        job_id: str,
        *,
        interval: int,
        chunked: bool,
        after: Position | None,
    ) -> MetricsWatcher | None:
        """Join a job's metric snapshots; the caller starts the watcher, or closes it.

        None if the client has the last snapshot of a job that ended. Raises
        `ApiError`.
        """
        seat = await self._seat(caller, job_id, "metrics")
        feed = seat.feed
        newest = feed.snapshots.newest
        if feed.ended and newest is not None and after == newest[0]:
            self._give_back(seat)
            return None
        connection = Connection(caller=caller, chunked=chunked, pool=self._sockets)
        watcher = MetricsWatcher(feed=feed, connection=connection, interval=interval, seen=after)
        feed.snapshots.join(watcher)
        self._occupy(seat, watcher)
        return watcher

    def credentials(self) -> set[str]:
        """Give the ids of the credentials behind the open streams."""
        return {connection.caller.credential_id for connection in self.connections}

    def revoke(self, credential_id: str) -> None:
        """Close the streams that a credential opened."""
        for connection in list(self.connections):
            if connection.caller.credential_id == credential_id:
                connection.close(EXPIRED)

    async def close(self) -> None:
        """Tell all watchers to connect elsewhere, and end all feeds.

        Returns when all sockets are closed. Does nothing the second time.
        """
        if self._closing:
            return
        self._closing = True
        self._send_all_away()
        await self._none_left.wait()
        self._sweeper.cancel()
        for feed in list(self._feeds.values()):
            self._end(feed)
        tasks = [self._sweeper, *self._ending, *self._authorizations.values()]
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sockets.close()

    def _send_all_away(self) -> None:
        """Tell all watchers to come back one after the other, not in one wave.

        Each has a share of `drain_spread` of its own: chance alone would put
        half as many again into some seconds as into others.
        """
        connections = list(self.connections)
        random.shuffle(connections)
        share = self._settings.drain_spread * 1000 / max(len(connections), 1)
        for place, connection in enumerate(connections):
            pause = self._settings.retry_ms / 2 + (place + random.random()) * share
            connection.close(drained(retry_ms=int(pause)))

    # Joining

    async def _seat(self, caller: Caller, job_id: str, kind: str) -> Seat:
        """Take a seat at an open feed, for a caller who may see the job, within the limits."""
        groups = self._count_in(caller)
        feed: Feed | None = None
        try:
            await self._authorize(caller, job_id)
            feed = self._feed(JobKey(caller.tenant_id, job_id))
            feed.hold()
            await feed.opened()
            self._check_alive(feed)
        except BaseException:
            if feed is not None:
                feed.release()
            self._count_out(groups)
            raise
        return Seat(caller, kind, groups, feed, self._loop.time())

    def _check_alive(self, feed: Feed) -> None:
        """Raise `ApiError` if a feed ended while somebody waited to join it."""
        if self._closing:
            raise ApiError(SHUTTING_DOWN, retry_after=1)
        if feed.failure is not None:
            raise feed.failure

    def _occupy(self, seat: Seat, watcher: LogWatcher | MetricsWatcher) -> None:
        """Let a watcher that has joined keep the seat until its connection is closed."""
        seat.occupied = True
        watcher.connection.on_closed = partial(self._vacate, seat, watcher)
        self.connections.add(watcher.connection)
        self._none_left.clear()
        self._observer.watcher_joined(seat.kind)

    def _vacate(
        self, seat: Seat, watcher: LogWatcher | MetricsWatcher, reason: CloseReason
    ) -> None:
        watcher.leave()
        self._give_back(seat)
        self.connections.discard(watcher.connection)
        if not self.connections:
            self._none_left.set()
        self._observer.watcher_left(seat.kind, reason)
        log.info(
            "hub_watcher_closed",
            kind=seat.kind,
            reason=reason.value,
            job_id=seat.feed.key.job_id,
            seconds=round(self._loop.time() - seat.since, 3),
            request_id=seat.caller.request_id,
            tenant_id=seat.caller.tenant_id,
            user_id=seat.caller.user_id,
        )

    def _give_back(self, seat: Seat) -> None:
        seat.feed.release()
        self._count_out(seat.groups)

    def _count_in(self, caller: Caller) -> tuple[tuple[str, ...], ...]:
        """Count a watcher in, under all that limits it. Raises `ApiError` RATE_LIMITED."""
        groups = self._groups(caller)
        for group, (limit, name) in groups.items():
            if self._counts[group] >= limit:
                self._refuse(name)
        self._counts.update(groups.keys())
        return tuple(groups)

    def _count_out(self, groups: tuple[tuple[str, ...], ...]) -> None:
        for group in groups:
            self._counts[group] -= 1
            if not self._counts[group]:
                del self._counts[group]

    def _groups(self, caller: Caller) -> dict[tuple[str, ...], tuple[int, str]]:
        settings = self._settings
        groups = {
            (): (settings.max_watchers, "process"),
            (caller.tenant_id,): (settings.max_watchers_per_tenant, "tenant"),
        }
        if caller.user_id is not None:
            user = (caller.tenant_id, caller.user_id)
            groups[user] = (settings.max_watchers_per_user, "user")
        return groups

    def _refuse(self, limit: str) -> None:
        self._observer.watcher_refused(limit)
        texts = {
            "process": "This replica has as many streams as it can take; try again.",
            "tenant": "Your tenant has as many streams open as it may; close some, then try again.",
            "user": "You have as many streams open as you may; close some, then try again.",
            "feeds": "This replica watches as many jobs as it can; try again.",
        }
        raise ApiError(RATE_LIMITED, texts[limit], retry_after=self.RETRY_AFTER)

    async def _authorize(self, caller: Caller, job_id: str) -> None:
        """Ask the coordinator for the job as this caller; once for all who ask together."""
        question = (caller.tenant_id, caller.user_id, job_id)
        task = self._authorizations.get(question)
        if task is None:
            task = self._loop.create_task(
                self._upstream.authorize(caller, job_id), name=f"hub-authorize-{job_id}"
            )
            self._authorizations[question] = task
            task.add_done_callback(lambda _: self._authorizations.pop(question, None))
        await asyncio.shield(task)

    def _feed(self, key: JobKey) -> Feed:
        feed = self._feeds.get(key)
        if feed is None:
            if len(self._feeds) >= self._settings.max_feeds:
                self._refuse("feeds")
            feed = self._feeds[key] = Feed(
                key,
                upstream=self._upstream,
                settings=self._settings,
                pacer=self._pacer,
                observer=self._observer,
                on_gone=self._end,
                on_history=self._account,
            )
        return feed

    def _end(self, feed: Feed) -> None:
        """Take a feed out, so that a new watcher gets a new one, and end it."""
        if self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]
            task = self._loop.create_task(feed.aclose(), name=f"hub-end-{feed.key.job_id}")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    # Bounds over all feeds

    def _account(self, change: int) -> None:
        """Keep the histories of all feeds together within bounds: the oldest goes first."""
        self._history_size += change
        self._observer.history_size(self._history_size)
        if change <= 0:
            return
        while self._history_size > self._settings.history_bytes_total:
            before = self._history_size
            oldest = min(
                self._feeds.values(),
                key=lambda feed: feed.core.history.oldest_arrival or float("inf"),
            )
            oldest.evict_oldest()
            if self._history_size >= before:
                return

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.SWEEP)
            now, wall = self._loop.time(), time.time()
            for feed in list(self._feeds.values()):
                feed.sweep(now, wall)
