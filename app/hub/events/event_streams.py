"""All streams over many jobs of a process: who joins, within which limits, and from where."""

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog

from app.caller import Caller
from app.errors import (
    JOB_NOT_FOUND,
    MALFORMED_REQUEST,
    SHUTTING_DOWN,
    ApiError,
)
from app.hub.close_reasons import CloseReason
from app.hub.coding.gzip_stream import GzipStream
from app.hub.coding.offered import coding_of
from app.hub.connection import Closing, Connection, Watcher
from app.hub.core.flush_pacer import FlushPacer
from app.hub.core.judging import ALL
from app.hub.events.cohort import Cohort, CohortTable
from app.hub.events.job_channel import FeedSource, JobChannel
from app.hub.events.sources import GetFeed, StatesSource
from app.hub.events.state_sources import StateSources
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

log = structlog.get_logger()


def _check_names(view: SelectionView, interest: Interest) -> None:
    """Raise `ApiError` JOB_NOT_FOUND if none of the jobs that are named is there."""
    named = interest.selection.job_ids
    if named and not any(view.record.get(job_id) for job_id in named):
        raise ApiError(JOB_NOT_FOUND)


@dataclass(frozen=True, slots=True)
class _Feeds(FeedSource):
    """The feeds of one tenant's jobs."""

    tenant_id: str
    request_id: str
    get_feed: GetFeed
    filters: FilterLimits

    def feed(self, job_id: str) -> Feed:
        """Return the job's feed, which may be opening."""
        return self.get_feed(self.tenant_id, job_id, self.request_id)

    def count_filter(self, job_id: str, log_filter: LogFilter) -> Callable[[], None]:
        """Count the filter for the job."""
        taken = self.filters.take_for_job(JobKey(self.tenant_id, job_id), log_filter)
        return partial(self.filters.release, *taken)


@dataclass(frozen=True, slots=True)
class _Lease:
    """A client's share of the limits, until it is closed."""

    caller: Caller
    #: In seconds of the loop's clock.
    since: float
    groups: tuple[Group, ...]
    filter: LogFilter = ALL
    #: Towards whose number of filters it counts; the channels count theirs for the jobs.
    filter_owners: Sequence[Owner] = ()


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
        self._settings = settings
        self._observer = observer
        self._sockets = sockets
        self._limits = limits
        self._filters = filters
        self._streams = streams
        self._get_feed = get_feed
        self._loop = asyncio.get_running_loop()
        self._table = CohortTable(
            settings=settings, observer=observer, pacer=pacer, loop=self._loop
        )
        self._sources = StateSources(
            upstream=upstream,
            settings=settings,
            observer=observer,
            limits=limits,
            get_feed=get_feed,
            on_failed=self._close_failed,
        )
        self._looked_at = 0.0
        self._closing = False

    async def watch(
        self,
        caller: Caller,
        interest: Interest,
        *,
        tail: int,
        after: Place | None,
        chunked: bool,
        gzip: bool = False,
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
        groups = tuple(self._limits.count_in(caller))
        lease = _Lease(caller, self._loop.time(), groups)
        joined = False
        try:
            if interest.logs:
                counted, owners = self._filters.take_for_user(caller, interest.filter)
                lease = replace(lease, filter=counted, filter_owners=owners)
                interest = replace(interest, filter=counted)
            source = await self._sources.open(caller, interest)
            try:
                watcher = await self._join(
                    lease, source, interest, tail=tail, after=after, chunked=chunked, gzip=gzip
                )
                joined = True
            finally:
                source.release()
        finally:
            if not joined:
                self._release(lease)
        return watcher

    async def _join(
        self,
        lease: _Lease,
        feed: StatesSource,
        interest: Interest,
        *,
        tail: int,
        after: Place | None,
        chunked: bool,
        gzip: bool,
    ) -> EventsWatcher:
        most = self._settings.events_followed
        view = feed.views.hold(interest.selection, follow=most if interest.follows else 0)
        reader: Reader | None = None
        try:
            if after is None:
                _check_names(view, interest)
                check_size(view, interest, self._settings)
            reader = await self._reader(lease.caller, feed, view, interest, tail, after)
            if self._closing:
                raise ApiError(SHUTTING_DOWN, retry_after=1)
            if feed.failure is not None:
                raise feed.failure
            return self._watcher(lease, feed, view, reader, chunked=chunked, gzip=gzip)
        except BaseException:
            if reader is not None:
                reader.close()
            raise
        finally:
            feed.views.release(view)

    async def _reader(
        self,
        caller: Caller,
        feed: StatesSource,
        view: SelectionView,
        interest: Interest,
        tail: int,
        after: Place | None,
    ) -> Reader:
        """Make the reader of a client that joins, its channels open as far as they can be."""
        source = _Feeds(caller.tenant_id, caller.request_id, self._get_feed, self._filters)

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
        if after is None:
            reader.begin()
        elif after.epoch != digest(feed.record.epoch):
            reader.reset("epoch_changed")
        elif not await feed.reach(after.version):
            reader.reset("too_old")
        elif interest.jobs and (after.whole or view.leaves_out):
            reader.reset("limit")
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
                    refused = [each.refusal for each in channels if each.refusal is not None]
                    if refused:
                        raise refused[0]
                except BaseException:
                    reader.close()
                    raise
        return reader

    def _watcher(
        self,
        lease: _Lease,
        feed: StatesSource,
        view: SelectionView,
        reader: Reader,
        *,
        chunked: bool,
        gzip: bool,
    ) -> EventsWatcher:
        coding = coding_of(self._settings, gzip=gzip)
        key: Hashable = (id(view), reader.interest, chunked, coding is not None)
        interest = reader.interest

        def enter(cohort: Cohort) -> None:
            feed.hold()
            feed.views.hold(view.selection, follow=view.key[1])
            feed.views.listen(
                view,
                cohort.wake,
                cluster=interest.nodes or interest.queue,
                on_broken=cohort.break_off,
            )

        def empty(cohort: Cohort) -> None:
            feed.views.unlisten(view, cohort.wake)
            feed.views.release(view)
            feed.release()

        cohort = Cohort(
            key,
            reader,
            table=self._table,
            chunked=chunked,
            gzip=coding is not None,
            enter=enter,
            on_empty=empty,
        )
        watcher = EventsWatcher(
            connect=partial(self._new_connection, lease=lease, chunked=chunked, gzip=coding),
            cohort=cohort,
            retry_ms=self._settings.retry_ms,
        )
        cohort.add(watcher)
        self._streams.add(watcher.connection)
        self._observer.watcher_joined("events")
        return watcher

    # Connections

    def _new_connection(
        self, watcher: Watcher, *, lease: _Lease, chunked: bool, gzip: GzipStream | None
    ) -> Connection:
        return Connection(
            caller=lease.caller,
            chunked=chunked,
            gzip=gzip,
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
        self._filters.release(lease.filter, lease.filter_owners)

    # The regular round

    def sweep(self, now: float, wall: float) -> None:
        """Check all clients; let jobs leave that ended too long ago."""
        if now - self._looked_at >= 1.0:
            self._looked_at = now
            self._sources.look(wall)
        for cohort in list(self._table.cohorts):
            try:
                cohort.check(now, wall)
            except Exception:  # the other streams keep their keepalives and limits
                log.exception("hub_events_sweep_failed")
                cohort.break_off()

    async def close(self) -> None:
        """End all feeds; the clients must have been closed."""
        self._closing = True
        await self._sources.close()

    def _close_failed(self, source: StatesSource) -> None:
        assert source.failure is not None
        kind = source.failure.kind
        closing = Closing(CloseReason.UPSTREAM_FAILED, kind, not is_final(kind))
        for cohort in list(self._table.cohorts):
            if cohort.reader.view.record is source.record:
                for watcher in list(cohort.members):
                    watcher.connection.close(closing)
