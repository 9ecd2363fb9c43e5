"""The hub: one feed per job, however many watch it, and the bounds over all of them."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from app.caller import Caller
from app.errors import SHUTTING_DOWN, ApiError
from app.hub.close_reasons import CloseReason
from app.hub.coding.offered import coding_of
from app.hub.connection import Connect, Connection, OnClosed, Packer, Watcher, drained
from app.hub.core.flush_pacer import FlushPacer
from app.hub.core.forms import FormName, form_of
from app.hub.core.judging import ALL, Unjudged
from app.hub.events.event_streams import EventStreams
from app.hub.feed import Feed
from app.hub.feed_table import FeedTable
from app.hub.filters.judge import Judge
from app.hub.filters.limits import FilterLimits, Owner
from app.hub.limits import Group, StreamLimits
from app.hub.log_watcher import LogWatcher
from app.hub.metrics.watcher import MetricsWatcher
from app.hub.observer import HubObserver
from app.hub.open_streams import OpenStreams
from app.hub.searching.results import Searcher
from app.hub.searching.searches import Searches
from app.hub.selection.states import StatesUpstream
from app.hub.settings import HubSettings
from app.hub.socket_pool import SocketPool
from app.hub.upstream import JobKey, Position, Upstream
from app.log_filter import LogFilter
from app.tasks.single_flight import SingleFlight
from app.tasks.turns import Turns

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Lease:
    """A watcher's share of the limits and its hold on a feed, until it is released."""

    caller: Caller
    kind: str
    feed: Feed
    #: What it counts towards.
    groups: Sequence[Group]
    #: When it was acquired, in seconds of the loop's clock.
    since: float
    filter: LogFilter = ALL
    #: Towards whose number of filters it counts.
    filter_owners: Sequence[Owner] = ()


class Hub:
    """Owns all feeds of a process. Made and closed within one event loop."""

    #: How often quiet streams are checked, in seconds.
    SWEEP = 0.5

    def __init__(
        self,
        *,
        upstream: Upstream,
        states: StatesUpstream,
        searcher: Searcher,
        settings: HubSettings,
        observer: HubObserver | None = None,
        turns: Turns | None = None,
    ) -> None:
        """`turns` are those in which watchers that are behind get on; by default, its own."""
        self._upstream = upstream
        self._settings = settings
        self._observer = observer or HubObserver()
        self._loop = asyncio.get_running_loop()
        self._pacer = FlushPacer(
            shortest=settings.flush_min,
            soon=settings.flush_soon,
            longest=settings.flush_max,
            share=settings.flush_share,
            now=self._loop.time(),
            cpu=time.thread_time(),
        )
        self._sockets = SocketPool()
        self._limits = StreamLimits(settings=settings, observer=self._observer)
        self._filters = FilterLimits(settings=settings, observer=self._observer)
        self._judge = Judge()
        self._feeds = FeedTable(
            upstream=upstream,
            settings=settings,
            observer=self._observer,
            pacer=self._pacer,
            limits=self._limits,
            judge=self._judge,
            turns=turns or Turns(),
        )
        self._closing = False
        #: Of all watchers that have joined.
        self.streams = OpenStreams()
        self._authorizations = SingleFlight[tuple[str, str | None, str], None]()
        #: Streams over many jobs.
        self.events = EventStreams(
            upstream=states,
            settings=settings,
            observer=self._observer,
            pacer=self._pacer,
            sockets=self._sockets,
            limits=self._limits,
            filters=self._filters,
            streams=self.streams,
            get_feed=self._feed,
        )
        self.searches = Searches(
            searcher=searcher,
            settings=settings,
            observer=self._observer,
            sockets=self._sockets,
            limits=self._limits,
            streams=self.streams,
            authorize=self._authorize,
        )
        self._sweeper = self._loop.create_task(self._sweep(), name="hub-sweeper")

    async def watch_logs(
        self,
        caller: Caller,
        job_id: str,
        *,
        log_filter: LogFilter,
        form: FormName,
        chunked: bool,
        tail: int,
        after: Position | None,
        first: int | None,
        follow: bool,
        gzip: bool = False,
        packer: Packer | None = None,
    ) -> LogWatcher | None:
        """Join a job's log; the caller starts the watcher on a socket, or closes it.

        It begins behind `after`, or with the entry `first`, or with the `tail` newest
        entries that pass the filter. `gzip` is whether the client prefers that, which counts
        for the form SSE. A `packer` is for another form, of one that does not follow. None
        if the client has everything of a job that ended, by `after`. Raises `ApiError`.
        """
        lease = await self._acquire(caller, job_id, "logs", log_filter)
        feed = lease.feed
        watcher = LogWatcher(
            feed=feed,
            connect=self._connect(
                lease,
                chunked,
                gzip=gzip and form is FormName.SSE,
                packer=packer,
                cut=form is not FormName.SSE,
            ),
            log_filter=lease.filter,
            form=form_of(form),
        )
        joined = False
        try:
            if await watcher.join(tail=tail, after=after, first=first, follow=follow):
                self._check_alive(feed)
                feed.log_watchers.add(watcher)
                self._opened(lease, watcher.connection)
                joined = True
        finally:
            if not joined:
                watcher.leave()
                self._release(lease)
        return watcher if joined else None

    async def watch_metrics(
        self,
        caller: Caller,
        job_id: str,
        *,
        interval: int,
        chunked: bool,
        after: Position | None,
        gzip: bool = False,
    ) -> MetricsWatcher | None:
        """Join a job's metric snapshots; the caller starts the watcher, or closes it.

        None if the client has the last snapshot of a job that ended. Raises
        `ApiError`.
        """
        lease = await self._acquire(caller, job_id, "metrics")
        feed = lease.feed
        watcher = MetricsWatcher(
            feed=feed, connect=self._connect(lease, chunked, gzip=gzip), interval=interval
        )
        joined = False
        try:
            if await watcher.join(after=after):
                self._check_alive(feed)
                self._opened(lease, watcher.connection)
                joined = True
        finally:
            if not joined:
                watcher.leave()
                self._release(lease)
        return watcher if joined else None

    async def passing(
        self, log_filter: LogFilter, entries: Sequence[Unjudged]
    ) -> list[tuple[int, bool]]:
        """Judge entries that were read apart from any stream: whether each passes, by offset."""
        return await self._judge.verdicts(log_filter, entries)

    def credentials(self) -> set[str]:
        """Return the ids of the credentials behind the open streams."""
        return self.streams.credentials()

    def revoke(self, credential_id: str) -> None:
        """Close the streams that a credential opened."""
        self.streams.revoke(credential_id)

    def job_deleted(self, tenant_id: str, job_id: str) -> None:
        """Close the streams of a job that is no more, and forget what is kept of its log."""
        self._feeds.job_deleted(JobKey(tenant_id, job_id))

    async def close(self) -> None:
        """Ask all watchers to connect elsewhere, and end all feeds.

        Returns when all sockets are closed. Does nothing the second time.
        """
        if self._closing:
            return
        self._closing = True
        self._feeds.stop()
        self._send_all_away()
        await self.streams.none_left()
        self._sweeper.cancel()
        await self.events.close()
        await self.searches.close()
        await self._feeds.close()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._authorizations.finish()
        self._judge.close()
        self._sockets.close()

    def _send_all_away(self) -> None:
        """Ask all watchers to reconnect one after the other, not in one wave.

        Each has a share of `drain_spread` of its own: chance alone would put
        half as many again into some seconds as into others.
        """
        connections = list(self.streams)
        random.shuffle(connections)
        share = self._settings.drain_spread * 1000 / max(len(connections), 1)
        for place, connection in enumerate(connections):
            pause = self._settings.retry_ms / 2 + (place + random.random()) * share
            connection.close(drained(retry_ms=int(pause)))

    # Joining

    async def _acquire(
        self, caller: Caller, job_id: str, kind: str, log_filter: LogFilter = ALL
    ) -> Lease:
        """Acquire a lease on an open feed, for a caller who may see the job, within the limits."""
        key = JobKey(caller.tenant_id, job_id)
        groups = self._limits.count_in(caller)
        owners: Sequence[Owner] = ()
        feed: Feed | None = None
        try:
            await self._authorize(caller, job_id)
            log_filter, owners = self._filters.take(key, caller, log_filter)
            feed = self._feeds.get(key, request_id=caller.request_id)
            feed.hold()
            await feed.opened()
            self._check_alive(feed)
        except BaseException:
            if feed is not None:
                feed.release()
            self._filters.release(log_filter, owners)
            self._limits.count_out(groups)
            raise
        return Lease(caller, kind, feed, groups, self._loop.time(), log_filter, owners)

    def _release(self, lease: Lease) -> None:
        lease.feed.release()
        self._filters.release(lease.filter, lease.filter_owners)
        self._limits.count_out(lease.groups)

    def _check_alive(self, feed: Feed) -> None:
        """Raise `ApiError` if a feed ended while somebody waited to join it."""
        if self._closing:
            raise ApiError(SHUTTING_DOWN, retry_after=1)
        if feed.failure is not None:
            raise feed.failure

    def _connect(
        self,
        lease: Lease,
        chunked: bool,
        *,
        gzip: bool,
        packer: Packer | None = None,
        cut: bool = False,
    ) -> Connect:
        """Return what makes the connection of a watcher that has this lease."""
        return partial(
            self._new_connection,
            caller=lease.caller,
            chunked=chunked,
            gzip=gzip,
            packer=packer,
            cut=cut,
            on_closed=partial(self._closed, lease),
        )

    def _new_connection(
        self,
        watcher: Watcher,
        *,
        caller: Caller,
        chunked: bool,
        gzip: bool,
        packer: Packer | None,
        cut: bool,
        on_closed: OnClosed,
    ) -> Connection:
        return Connection(
            caller=caller,
            chunked=chunked,
            gzip=coding_of(self._settings, gzip=gzip),
            packer=packer,
            cut=cut,
            pool=self._sockets,
            watcher=watcher,
            on_closed=on_closed,
        )

    def _opened(self, lease: Lease, connection: Connection) -> None:
        """Note that a watcher has joined; it keeps its lease until its connection is closed."""
        self.streams.add(connection)
        self._observer.watcher_joined(lease.kind)

    def _closed(self, lease: Lease, connection: Connection, reason: CloseReason) -> None:
        self._release(lease)
        self.streams.remove(connection)
        self._observer.watcher_left(lease.kind, reason)
        log.info(
            "hub_watcher_closed",
            kind=lease.kind,
            reason=reason.value,
            job_id=lease.feed.key.job_id,
            seconds=round(self._loop.time() - lease.since, 3),
            request_id=lease.caller.request_id,
            tenant_id=lease.caller.tenant_id,
            user_id=lease.caller.user_id,
        )

    async def _authorize(self, caller: Caller, job_id: str) -> None:
        """Ask the coordinator for the job as this caller; once for all who ask together."""
        question = (caller.tenant_id, caller.user_id, job_id)
        await self._authorizations.ask(
            question,
            lambda: self._upstream.authorize(caller, job_id),
            name=f"hub-authorize-{job_id}",
        )

    def _feed(self, tenant_id: str, job_id: str, request_id: str) -> Feed:
        return self._feeds.get(JobKey(tenant_id, job_id), request_id=request_id)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.SWEEP)
            now, wall = self._loop.time(), time.time()
            self._feeds.sweep(now, wall)
            for kind, sweep in (("events", self.events.sweep), ("search", self.searches.sweep)):
                try:
                    sweep(now, wall)
                except Exception:  # all other streams keep their keepalives and limits
                    log.exception("hub_sweep_failed", kind=kind)
