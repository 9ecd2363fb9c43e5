"""What a feed needs of its watchers: it calls them, and imports none of their classes."""

from typing import Protocol

from app.hub.connection import Connection, SharedPayload
from app.hub.core.cursors import Cursor
from app.hub.upstream import Position


class LogSubscriber(Cursor, Protocol):
    """A watcher of a job's log: a cursor of the feed's core, with a connection."""

    connection: Connection

    def pump_soon(self) -> None:
        """Step in the loop's next turn."""


class FeedListener(Protocol):
    """Reads a feed by a cursor of its own, and is told when there is something to read."""

    def on_feed_changed(self) -> None:
        """Note that entries were flushed, a snapshot came, or the log ended, changed or failed."""


class MetricsSubscriber(Protocol):
    """A watcher of a job's metric snapshots."""

    connection: Connection
    #: Seconds between two snapshots.
    interval: int

    def wants(self, position: Position) -> bool:
        """Whether this snapshot is new to the watcher and its socket can take it."""

    def give(self, position: Position, event: SharedPayload) -> None:
        """Write a snapshot."""

    def pump(self) -> None:
        """Send the newest snapshot unless it was sent before; close at the job's end."""
