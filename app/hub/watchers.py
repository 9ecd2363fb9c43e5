"""The watchers: each steps its own stream forward, in its handler's task."""

import structlog

from app.caller import Caller
from app.errors import FAILED_PRECONDITION, ApiError
from app.hub import frames
from app.hub.connection import BROKEN, ENDED, TAIL_SENT, Closing, Connection
from app.hub.core import Cursor, Step
from app.hub.feed import Feed, is_final
from app.hub.reasons import CloseReason
from app.hub.sink import Sink
from app.hub.upstream import LogPage, Position

log = structlog.get_logger(__name__)


class LogWatcher(Cursor):
    """A watcher of a job's log. Made by the hub, joined to its feed."""

    __slots__ = ("_fetch_pause", "_prelude", "connection", "feed")

    #: First pause after a page could not be read, in seconds; it doubles.
    FETCH_PAUSE = 0.1

    def __init__(self, *, feed: Feed, caller: Caller, level: int, chunked: bool) -> None:
        super().__init__(level=level, chunked=chunked)
        self.feed = feed
        self.connection = Connection(caller=caller, chunked=chunked)
        self._prelude = b""
        self._fetch_pause = self.FETCH_PAUSE

    def send_live(self, data: bytes) -> bool:
        """Write what the whole cohort gets; False if the socket is full or gone."""
        sink = self.connection.sink
        assert sink is not None
        return sink.send(data)

    async def join(self, *, tail: int, after: Position | None, follow: bool) -> bool:
        """Find where to start. False if the client has everything of a job that ended.

        Raises `ApiError` if the coordinator has to be asked and cannot answer.
        """
        core, feed = self.feed.core, self.feed
        page: LogPage | None = None
        missed = b""
        if after is None:
            page = await self._join_tail(tail)
        elif core.end is not None and after == Position(core.epoch, core.end.last_offset):
            return False
        elif (reason := await self._why_unknown(after)) is None:
            core.join(self, after.offset)
        else:
            page = await self._join_tail(tail)
            missed = frames.gap(
                start=Position(after.epoch, after.offset + 1),
                end=None,
                reason=reason,
                position=core.position_of(self),
            )
        start = frames.bookmark(core.position_of(self), retry_ms=feed.settings.retry_ms)
        self._prelude = start + missed
        if not follow:
            self.until = core.flushed
        if page is not None:
            self._prelude += core.take_page(self, page)
        return True

    async def _why_unknown(self, after: Position) -> str | None:
        """Tell why a place is not one of this log; None if it is."""
        core = self.feed.core
        if after.epoch != core.epoch:
            return "unknown_epoch"
        if after.offset > core.last:
            # Another replica may have been ahead of this feed: the coordinator knows.
            page = await self.feed.read_after(after, 0)
            if after.offset > page.last_offset:
                return "future_offset"
        return None

    async def _join_tail(self, count: int) -> LogPage | None:
        """Join before the tail; the page with which it begins, if it had to be read."""
        core = self.feed.core
        while True:
            offset = core.find_tail(count, self.level)
            if offset is not None:
                core.join(self, offset)
                return None
            page = await self.feed.read_tail(count, self.level)
            if page.epoch == core.epoch:
                first = page.records[0].offset if page.records else page.next_after + 1
                core.join(self, first - 1)
                return page

    async def run(self, sink: Sink) -> CloseReason:
        """Write the stream until it ends; why it ended."""
        connection, feed = self.connection, self.feed
        connection.sink = sink
        try:
            self._send(self._prelude)
            self._prelude = b""
            await connection.room(feed.settings.write_timeout)
            while connection.closing is None:
                await self._step()
        except Exception:
            log.exception("hub_watcher_crashed", job_id=feed.key.job_id)
            connection.close(BROKEN)
        assert connection.closing is not None
        connection.farewell(feed.core.position_of(self), feed.status, feed.settings.retry_ms)
        return connection.closing.reason

    async def _step(self) -> None:
        connection, core = self.connection, self.feed.core
        step = core.next(self)
        if isinstance(step, bytes):
            self._send(step)
            await connection.room(self.feed.settings.write_timeout)
        elif step is Step.FETCH:
            await self._fetch()
        elif step is Step.DONE:
            connection.close(ENDED if core.end is not None else TAIL_SENT)
        else:
            await connection.wait()

    def _send(self, payload: bytes) -> None:
        if payload:
            self.connection.send(payload)
            self.feed.observer.delivered("logs", len(payload))

    async def _fetch(self) -> None:
        """Take a page from the coordinator, or wait a little where it has none to give."""
        connection, feed = self.connection, self.feed
        position = feed.core.position_of(self)
        try:
            page = await feed.read_after(position, self.level)
        except ApiError as error:
            if is_final(error.kind) and error.kind is not FAILED_PRECONDITION:
                connection.close(Closing(CloseReason.UPSTREAM_FAILED, error.kind))
                return
            # An unknown epoch included: the feed will learn of the new one.
            await connection.wait(self._fetch_pause)
            self._fetch_pause = min(self._fetch_pause * 2, feed.settings.reconnect_max)
            return
        self._fetch_pause = self.FETCH_PAUSE
        self._send(feed.core.take_page(self, page))
        await connection.room(feed.settings.write_timeout)


class MetricsWatcher:
    """A watcher of a job's metric snapshots. Made by the hub, joined to its feed."""

    __slots__ = ("_seen", "connection", "feed", "interval")

    def __init__(
        self, *, feed: Feed, caller: Caller, interval: int, chunked: bool, seen: Position | None
    ) -> None:
        self.feed = feed
        self.interval = interval
        self.connection = Connection(caller=caller, chunked=chunked)
        self._seen = seen

    def wants(self, position: Position) -> bool:
        """Whether this snapshot is new to it and its socket can take it."""
        if self.connection.sink is None or self.connection.full:
            return False
        seen = self._seen
        return seen is None or seen.epoch != position.epoch or seen.offset < position.offset

    def give(self, position: Position, data: bytes) -> None:
        """Write a snapshot, framed."""
        assert self.connection.sink is not None
        self._seen = position
        if not self.connection.sink.send(data):
            # It has to look after its full socket.
            self.connection.wake()

    @property
    def position(self) -> Position:
        """The id of the last snapshot that it has."""
        return self._seen or Position(self.feed.core.epoch, 0)

    async def run(self, sink: Sink) -> CloseReason:
        """Write the stream until it ends; why it ended."""
        connection, feed = self.connection, self.feed
        connection.sink = sink
        settings = feed.settings
        connection.send(frames.bookmark(self.position, retry_ms=settings.retry_ms))
        self._catch_up()
        while connection.closing is None:
            if connection.full or sink.closing:
                await connection.room(settings.write_timeout)
            elif feed.ended:
                self._catch_up()
                connection.close(ENDED)
            else:
                await connection.wait()
        connection.farewell(self.position, feed.status, settings.retry_ms)
        return connection.closing.reason

    def _catch_up(self) -> None:
        newest = self.feed.newest
        if newest is not None and self.wants(newest[0]):
            self._seen = newest[0]
            self.connection.send(newest[1])
            self.feed.observer.delivered("metrics", len(newest[1]))
