"""All streams over many jobs of a process: who joins, within which limits, and from where."""

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from app.caller import Caller
from app.errors import (
    MALFORMED_REQUEST,
    NOT_IMPLEMENTED,
    SHUTTING_DOWN,
    ApiError,
)
from app.hub.close_reasons import CloseReason
from app.hub.connection import Closing, Connection, Watcher
from app.hub.core.flush_pacer import FlushPacer
from app.hub.events.cohort import Cohort, Meeting
from app.hub.events.job_channel import FeedSource, JobChannel
from app.hub.events.tenant_feed import TenantFeed
from app.hub.events.watcher import EventsWatcher
from app.hub.feed import Feed
from app.hub.filters.limits import FilterLimits, Owner
from app.hub.limits import Group, StreamLimits
from app.hub.observer import HubObserver
from app.hub.open_streams import OpenStreams
from app.hub.selection.places import LogPlace, Place, digest
from app.hub.selection.reader import Reader
from app.hub.selection.selection import Interest
from app.hub.selection.size import check_size
from app.hub.selection.states import StatesUpstream
from app.hub.selection.view import SelectionView
from app.hub.settings import HubSettings
from app.hub.socket_pool import SocketPool
from app.hub.upstream import JobKey, is_final
from app.log_filter import LogFilter
from app.tasks.single_flight import SingleFlight

log = structlog.get_logger()

#: Returns the feed of a tenant's job, for the request of this id.
GetFeed = Callable[[str, str, str], Feed]


@dataclass(frozen=True, slots=True)
class _Feeds(FeedSource):
    """The feeds of one tenant's jobs."""

    tenant_id: str
    request_id: str
    get_feed: GetFeed

    def feed(self, job_id: str) -> Feed:
        """Return the job's feed, which may be opening."""
        return self.get_feed(self.tenant_id, job_id, self.request_id)


@dataclass(frozen=True, slots=True)
class _Lease:
    """A client's share of the limits, until it is closed."""

    caller: Caller
    #: In seconds of the loop's clock.
    since: float
    groups: tuple[Group, ...]
    #: What a filter counts towards, once for each job.
    filters: list[tuple[LogFilter, Sequence[Owner]]] = field(default_factory=list)


class EventStreams:
    """Made and closed by the hub, within its event loop."""

    def __init__(
        self,
        *,
        upstream: StatesUpstream,
        settings: HubSettings,
        observer: HubObserver,
        pacer: FlushPacer,
        sockets: SocketPool,
        limits: StreamLimits,
        filters: FilterLimits,
        streams: OpenStreams,
        get_feed: GetFeed,
    ) -> None:
        self._upstream = upstream
        self._settings = settings
        self._observer = observer
        self._sockets = sockets
        self._limits = limits
        self._filters = filters
        self._streams = streams
        self._get_feed = get_feed
        self._loop = asyncio.get_running_loop()
        self._meeting = Meeting(settings=settings, observer=observer, pacer=pacer, loop=self._loop)
        self._tenants: dict[str, TenantFeed] = {}
        self._authorizations = SingleFlight[tuple[str, str | None], None]()
        #: Feeds on their way out.
        self._ending: set[asyncio.Task[None]] = set()
        self._looked_at = 0.0
        self._closing = False

    async def watch(
        self, caller: Caller, interest: Interest, *, tail: int, after: Place | None, chunked: bool
    ) -> EventsWatcher:
        """Join; the caller starts the watcher on a socket, or closes it.

        It begins with the whole state and the `tail` newest entries of each
        followed job, or behind `after`. Raises `ApiError`.
        """
        if after is not None and after.selection != interest.digest[:8]:
            raise ApiError(
                MALFORMED_REQUEST,
                "Last-Event-ID is of another selection. Leave it out to begin anew, or send the "
                "query that it came from.",
            )
        lease = _Lease(caller, self._loop.time(), tuple(self._limits.count_in(caller)))
        joined = False
        try:
            await self._authorize(caller)
            feed = self._tenant_feed(caller)
            feed.hold()
            try:
                watcher = await self._join(
                    lease, feed, interest, tail=tail, after=after, chunked=chunked
                )
                joined = True
            finally:
                feed.release()
        finally:
            if not joined:
                self._release(lease)
        return watcher

    async def _join(
        self,
        lease: _Lease,
        feed: TenantFeed,
        interest: Interest,
        *,
        tail: int,
        after: Place | None,
        chunked: bool,
    ) -> EventsWatcher:
        await self._ready(feed, interest)
        most = self._settings.events_followed
        view = feed.views.hold(interest.selection, follow=most if interest.follows else 0)
        reader: Reader | None = None
        try:
            if after is None:
                check_size(view, interest, self._settings)
            if interest.logs:
                interest = self._count_filter(lease, view, interest)
            reader = await self._reader(lease.caller, feed, view, interest, tail, after)
            if self._closing:
                raise ApiError(SHUTTING_DOWN, retry_after=1)
            if feed.failure is not None:
                raise feed.failure
            return self._watcher(lease, feed, view, reader, chunked=chunked)
        except BaseException:
            if reader is not None:
                reader.close()
            raise
        finally:
            feed.views.release(view)

    def _count_filter(self, lease: _Lease, view: SelectionView, interest: Interest) -> Interest:
        """Count the filter for each job that is followed now; the interest with the one to use."""
        for job_id in view.followed:
            key = JobKey(lease.caller.tenant_id, job_id)
            lease.filters.append(self._filters.take(key, lease.caller, interest.filter))
        return replace(interest, filter=lease.filters[0][0]) if lease.filters else interest

    async def _ready(self, feed: TenantFeed, interest: Interest) -> None:
        try:
            await feed.ready(nodes=interest.nodes, queue=interest.queue)
        except ApiError as error:
            if error.kind is NOT_IMPLEMENTED:
                raise ApiError(
                    NOT_IMPLEMENTED,
                    "The coordinator does not tell of all jobs at once (it does not implement "
                    "WatchJobs). Name each job with job_id, and leave out the other conditions, "
                    "nodes and queue.",
                ) from None
            raise

    async def _reader(
        self,
        caller: Caller,
        feed: TenantFeed,
        view: SelectionView,
        interest: Interest,
        tail: int,
        after: Place | None,
    ) -> Reader:
        """Make the reader of a client that joins, its channels open as far as they can be."""
        source = _Feeds(caller.tenant_id, caller.request_id, self._get_feed)

        def new_channel(job_id: str, start: LogPlace | int | None) -> JobChannel:
            return JobChannel(
                job_id,
                interest=interest,
                start=start,
                source=source,
                request_id=caller.request_id,
            )

        def open_channel(job_id: str, place: LogPlace | None) -> JobChannel:
            channel = new_channel(job_id, place)
            channel.open()
            return channel

        reader = Reader(
            view, interest, open_channel=open_channel, slice_bytes=self._settings.slice_bytes
        )
        reason = None
        if after is not None:
            if after.epoch != digest(feed.record.epoch):
                reason = "epoch_changed"
            elif not await feed.reach(after.version):
                reason = "too_old"
        if after is None:
            reader.begin()
        elif reason is not None:
            reader.reset(reason)
        else:
            now = time.time()
            view.look(now)
            reader.resume(view.changes_of_record(after.version, after.looked, now))
        if interest.follows:
            places = {} if after is None else after.logs
            followed = view.followed
            channels = [
                new_channel(job_id, tail if after is None else places.get(digest(job_id)))
                for job_id in reversed(followed)
            ]
            reader.follow(followed, channels, places)
            if channels:
                # The first bookmark has the places of those that are there by then.
                try:
                    await asyncio.wait(
                        [channel.open() for channel in channels],
                        timeout=self._settings.open_timeout,
                    )
                except BaseException:
                    reader.close()
                    raise
        return reader

    def _watcher(
        self,
        lease: _Lease,
        feed: TenantFeed,
        view: SelectionView,
        reader: Reader,
        *,
        chunked: bool,
    ) -> EventsWatcher:
        key: Hashable = (id(view), reader.interest, chunked)
        interest = reader.interest

        def enter(cohort: Cohort) -> None:
            feed.hold()
            feed.views.hold(view.selection, follow=view.key[1])
            feed.views.listen(view, cohort.wake, cluster=interest.nodes or interest.queue)

        def empty(cohort: Cohort) -> None:
            feed.views.unlisten(view, cohort.wake)
            feed.views.release(view)
            feed.release()

        cohort = Cohort(
            key, reader, meeting=self._meeting, chunked=chunked, enter=enter, on_empty=empty
        )
        watcher = EventsWatcher(
            connect=partial(self._new_connection, lease=lease, chunked=chunked),
            cohort=cohort,
            retry_ms=self._settings.retry_ms,
        )
        cohort.add(watcher)
        self._streams.add(watcher.connection)
        self._observer.watcher_joined("events")
        return watcher

    # Feeds of tenants

    def _tenant_feed(self, caller: Caller) -> TenantFeed:
        if self._closing:
            raise ApiError(SHUTTING_DOWN, retry_after=1)
        feed = self._tenants.get(caller.tenant_id)
        if feed is None:
            if len(self._tenants) >= self._settings.max_feeds:
                raise self._limits.refusal("feeds")
            feed = self._tenants[caller.tenant_id] = TenantFeed(
                caller.tenant_id,
                upstream=self._upstream,
                settings=self._settings,
                observer=self._observer,
                on_gone=self._end,
                request_id=caller.request_id,
            )
        return feed

    def _end(self, feed: TenantFeed) -> None:
        """Take a feed out, so that a new client gets a new one, and end it."""
        if self._tenants.get(feed.tenant_id) is not feed:
            return
        del self._tenants[feed.tenant_id]
        if feed.failure is not None:
            kind = feed.failure.kind
            closing = Closing(CloseReason.UPSTREAM_FAILED, kind, not is_final(kind))
            for cohort in list(self._meeting.cohorts):
                if cohort.reader.view.record is feed.record:
                    for watcher in list(cohort.members):
                        watcher.connection.close(closing)
        task = self._loop.create_task(feed.aclose(), name=f"hub-end-states-{feed.tenant_id}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _authorize(self, caller: Caller) -> None:
        """Ask the coordinator for jobs as this caller; once for all who ask together."""
        await self._authorizations.ask(
            (caller.tenant_id, caller.user_id),
            lambda: self._upstream.authorize_list(caller),
            name=f"hub-authorize-{caller.tenant_id}",
        )

    # Connections

    def _new_connection(self, watcher: Watcher, *, lease: _Lease, chunked: bool) -> Connection:
        return Connection(
            caller=lease.caller,
            chunked=chunked,
            pool=self._sockets,
            watcher=watcher,
            on_closed=partial(self._closed, lease),
        )

    def _closed(self, lease: _Lease, connection: Connection, reason: CloseReason) -> None:
        self._release(lease)
        self._streams.remove(connection)
        self._observer.watcher_left("events", reason)
        log.info(
            "hub_watcher_closed",
            kind="events",
            reason=reason.value,
            seconds=round(self._loop.time() - lease.since, 3),
            request_id=lease.caller.request_id,
            tenant_id=lease.caller.tenant_id,
            user_id=lease.caller.user_id,
        )

    def _release(self, lease: _Lease) -> None:
        self._limits.count_out(lease.groups)
        for log_filter, owners in lease.filters:
            self._filters.release(log_filter, owners)

    # The regular round

    def sweep(self, now: float, wall: float) -> None:
        """Check all clients; let jobs leave that ended too long ago."""
        if now - self._looked_at >= 1.0:
            self._looked_at = now
            for feed in list(self._tenants.values()):
                feed.look(wall)
        for cohort in list(self._meeting.cohorts):
            try:
                cohort.check(now, wall)
            except Exception:  # the other streams keep their keepalives and limits
                log.exception("hub_events_sweep_failed")

    async def close(self) -> None:
        """End all feeds; the clients must have been closed."""
        self._closing = True
        for feed in list(self._tenants.values()):
            self._end(feed)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._authorizations.finish()
