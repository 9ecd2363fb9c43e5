"""A client of a stream over many jobs."""

from typing import TYPE_CHECKING

from app.errors import INTERNAL_ERROR
from app.hub.connection import Closing, Connect
from app.hub.selection import event_frames

if TYPE_CHECKING:
    from app.hub.events.cohort import Cohort


class EventsWatcher:
    """One client, which is always in one cohort. Made by `EventStreams`."""

    __slots__ = ("cohort", "connection", "retry_ms")

    def __init__(self, *, connect: Connect, cohort: "Cohort", retry_ms: int) -> None:
        self.connection = connect(self)
        self.cohort: Cohort | None = cohort
        #: Its reconnection delay, until it was told.
        self.retry_ms: int | None = retry_ms

    def start(self, fd: int) -> None:
        """Begin to write to the client's socket, which is the watcher's from now on."""
        self.connection.open(fd)
        self.pump()

    def pump(self) -> None:
        """Continue: the client can be sent more."""
        if self.cohort is not None and self.connection.is_open:
            self.cohort.wake()

    def stop(self) -> None:
        """Leave the cohort, so that nothing is written behind the final event."""
        cohort, self.cohort = self.cohort, None
        if cohort is not None:
            cohort.remove(self)

    def leave(self) -> None:
        """Let go of everything: the stream is over."""
        self.stop()

    def final_event(self, closing: Closing) -> bytes:
        """Return the last event, which says why the stream ends."""
        kind = closing.error or INTERNAL_ERROR
        return event_frames.error(kind, retryable=closing.retryable, retry_ms=closing.retry_ms)
