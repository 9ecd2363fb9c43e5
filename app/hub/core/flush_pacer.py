"""How long new entries are held back so that they can be written together.

The interval is one for all feeds of a process, adjusted from the share of the loop's
time that flushing took. A tail of 50 ms of latency pays for joining entries, which
is where the cost is: writing one event costs about as much as writing fifty.
"""


class FlushPacer:
    """Keeps flushing at a bounded share of the event loop's time, over all feeds of a process.

    The interval is as short as `shortest` while flushing costs little, and
    grows to `longest` at most as it costs more. Times are in seconds.
    """

    #: How often the interval is adjusted.
    WINDOW = 0.25

    def __init__(self, *, shortest: float, longest: float, share: float, now: float) -> None:
        self.interval = shortest
        self._shortest = shortest
        self._longest = longest
        self._share = share
        self._began = now
        self._spent = 0.0

    def record(self, spent: float, now: float) -> None:
        """Take the time that a flush took, which ended at `now`."""
        self._spent += spent
        elapsed = now - self._began
        if elapsed < self.WINDOW:
            return
        # With entries always waiting, the share is inversely proportional to
        # the interval: this reaches the target in one step. Where entries are
        # rarer it takes a few, hence the bounds on a step.
        factor = self._spent / elapsed / self._share
        interval = max(self.interval, 0.001) * min(max(factor, 0.5), 2.0)
        self.interval = min(max(interval, self._shortest), self._longest)
        self._began = now
        self._spent = 0.0
