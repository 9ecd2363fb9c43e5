"""Which metric snapshots of a followed job were delivered, and when the next one is due."""

from typing import Self

from app.hub.feed import Feed
from app.hub.selection.job_form import JobForm
from app.hub.upstream import Position


class Snapshots:
    """The newest snapshot of a feed, at most once an interval and never twice."""

    __slots__ = ("_form", "_interval", "_tick", "due", "seen")

    def __init__(self, *, form: JobForm, interval: int) -> None:
        """`interval` is in seconds."""
        self._form = form
        self._interval = interval
        #: The newest one that was delivered, and the interval in which that was.
        self.seen: Position | None = None
        self._tick = -1
        #: When there will be one that has to wait now; None if none has to.
        self.due: float | None = None

    def next(self, feed: Feed, now: float) -> bytes:
        """Return the newest one's event, which counts as delivered; nothing if it is not due."""
        self.due = None
        newest = feed.metrics.newest
        if newest is None or newest[0] == self.seen:
            return b""
        # All who want the same interval are served in the same moments.
        tick = int(now // self._interval)
        if tick <= self._tick and feed.core.end is None:
            self.due = (self._tick + 1) * float(self._interval)
            return b""
        self._tick = tick
        self.seen, event = newest
        return self._form.snapshot(self.seen, event.data)

    def sequence(self, epoch: str) -> int:
        """Return the sequence of the newest one that was delivered of an epoch; 0 if none was."""
        return self.seen.offset if self.seen is not None and self.seen.epoch == epoch else 0

    def take_place_of(self, other: Self) -> None:
        """Go on where another one is."""
        self.seen, self._tick = other.seen, other._tick
