"""How long a feed's upstream has been lost, by a clock that only progress sets back."""

from app.errors import COORDINATOR_ERROR, ErrorKind


class Outage:
    """Bounds the time without progress over all attempts to go on with an upstream.

    Progress is an entry of the log that was never there before. An attempt is
    none: a stream that begins and breaks at the same place would be tried again
    for ever. While a stream has delivered everything that exists and stays open
    for `steady` seconds or more, the clock stands still, since a quiet job
    makes no progress either, and one that did so for LONG seconds and the limit
    ends the outage; a stream that breaks its contract has no such time.

    All times are in seconds of one steady clock.
    """

    LONG = 60.0

    def __init__(self, *, limit: float, steady: float) -> None:
        self._limit = limit
        self._steady = steady
        #: The first break since the last progress, later by the time that the clock stood still.
        self._since: float | None = None
        #: When the stream that is open had delivered everything that existed.
        self._complete_at: float | None = None

    def progressed(self) -> None:
        """Set the clock back: an entry arrived that was never there before."""
        self._since = None

    def caught_up(self, now: float) -> None:
        """Note that the stream has delivered everything that existed when it began."""
        if self._complete_at is None:
            self._complete_at = now

    def broke_off(self, now: float, kind: ErrorKind) -> bool:
        """Note that the stream, or opening one, failed; return whether the limit is reached."""
        complete_at, self._complete_at = self._complete_at, None
        if self._since is None:
            self._since = now
        elif complete_at is not None and kind is not COORDINATOR_ERROR:
            held = now - complete_at
            if held >= max(self.LONG, self._limit):
                self._since = now
            elif held >= self._steady:
                self._since += held
        return now - self._since >= self._limit
