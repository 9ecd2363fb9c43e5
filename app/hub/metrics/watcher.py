"""A watcher of a job's metrics."""

from app.hub.connection import ENDED, Closing, Connect, SharedPayload, event_of
from app.hub.core import frames
from app.hub.feed import Feed
from app.hub.joining.resuming import why_no_snapshot
from app.hub.upstream import Position


class MetricsWatcher:
    """A watcher of a job's metric snapshots. Made by the hub, joined to its feed."""

    __slots__ = ("_missed", "_seen", "connection", "feed", "interval")

    def __init__(self, *, feed: Feed, connect: Connect, interval: int) -> None:
        self.feed = feed
        self.connection = connect(self)
        self.interval = interval
        self._seen: Position | None = None
        #: A place of the client behind which nobody knows of snapshots, and what tells it that.
        self._missed: tuple[Position, bytes] | None = None

    async def join(self, *, after: Position | None) -> bool:
        """Join the feed. False if the client has the last snapshot of a job that ended.

        Raises `ApiError` if the coordinator has to be asked and cannot answer.
        """
        feed = self.feed
        if after is not None:
            reason = await why_no_snapshot(
                feed, after, request_id=self.connection.caller.request_id
            )
            if reason is None:
                self._seen = after
                if feed.ended and after.offset >= feed.metrics.sequence(after.epoch):
                    return False
            else:
                gap = frames.gap(
                    start=Position(after.epoch, after.offset + 1),
                    end=None,
                    reason=reason,
                    position=self._start,
                )
                self._missed = after, gap
        feed.metrics.join(self)
        return True

    @property
    def _start(self) -> Position:
        return self._seen or Position(self.feed.core.epoch, 0)

    def start(self, fd: int) -> None:
        """Begin to write to the client's socket, which is the watcher's from now on."""
        connection, feed = self.connection, self.feed
        connection.open(fd)
        if connection.is_open:
            # Who does not get as far as the gap comes back to be told again.
            place, gap = self._missed or (self._start, b"")
            bookmark = frames.bookmark(place, retry_ms=feed.settings.retry_ms)
            connection.send(bookmark + gap, feed.loop.time())
            self.pump()

    def stop(self) -> None:
        """Do nothing: a connection that closes is not open, so no snapshot is wanted."""

    def leave(self) -> None:
        """Leave the feed."""
        self.feed.metrics.leave(self)

    def final_event(self, closing: Closing) -> bytes:
        """Return the last event: the last snapshot that was sent, and the job's status."""
        return event_of(closing, self._start, self.feed.status)

    def wants(self, position: Position) -> bool:
        """Whether this snapshot is new to it and its socket can take it."""
        if not self.connection.is_open or self.connection.unsent:
            return False
        seen = self._seen
        return seen is None or seen.epoch != position.epoch or seen.offset < position.offset

    def give(self, position: Position, event: SharedPayload) -> None:
        """Write a snapshot."""
        self._seen = position
        self.connection.send_shared(event, self.feed.loop.time())

    def pump(self) -> None:
        """Catch up with the newest snapshot, and with the end."""
        connection, feed = self.connection, self.feed
        newest = feed.metrics.newest
        if newest is not None and self.wants(newest[0]):
            position, event = newest
            self.give(position, event)
            feed.observer.delivered("metrics", len(event.data))
        if feed.ended and connection.is_open and not connection.unsent:
            connection.close(ENDED)
