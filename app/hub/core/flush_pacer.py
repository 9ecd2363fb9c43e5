"""How long new entries are held back so that they can be written together.

The interval is one for all feeds of a process. While the loop has room, an entry goes out
as it arrives. Joining entries costs latency and saves CPU time: writing one event costs
about as much as writing ten. So entries are joined where writing each by itself would take
most of the loop's time, and no more than that needs.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(slots=True)
class FlushTimes:
    """When one feed has flushed, and what it holds back. Times are in seconds."""

    #: When the last flush began, and how long it took.
    began: float = float("-inf")
    took: float = 0.0
    #: Batches of entries that are held back.
    batches: int = 0

    def due(self, interval: float) -> float:
        """Return when the next flush is due.

        From when an entry is held back until the last watcher has it, it takes an interval
        and a little, unless the writing takes most of it.
        """
        late = max(self.took - interval / 8, 0.0)
        return self.began + max(interval - late, interval / 2)

    def flushed(self, began: float, ended: float) -> int:
        """Note a flush; returns how many batches it had."""
        self.began, self.took = began, ended - began
        batches, self.batches = self.batches, 0
        return batches


class FlushPacer:
    """Adjusts the interval between two flushes from what flushing costs and how busy the loop is.

    The interval is `shortest` where writing each entry by itself would take at most ROOM of
    the loop's time. Otherwise it grows until flushing takes `share` of it, but no further
    than `longest_at` the loop's busy share. Times are in seconds.
    """

    #: How often the interval is adjusted.
    WINDOW: Final = 0.25
    #: Busy share of the loop up to which there is room.
    ROOM: Final = 0.7
    #: Busy share from which on the interval may be `longest`.
    FULL: Final = 0.9
    #: What stays of an interval that is longer than it may be, at each adjustment.
    _YIELD: Final = 0.8
    #: What a flush of one entry costs, of one that has several: measured with 500 watchers.
    _SINGLE: Final = 0.65

    def __init__(
        self,
        *,
        shortest: float,
        soon: float,
        longest: float,
        share: float,
        now: float,
        cpu: float,
    ) -> None:
        """`soon` is the longest interval while there is room; `cpu` the loop's CPU time so far."""
        self.interval = shortest
        self._shortest = shortest
        self._soon = min(soon, longest)
        self._longest = longest
        self._share = share
        self._began = now
        self._cpu = cpu
        self._spent = 0.0
        self._flushes = 0
        self._arrivals = 0

    def longest_at(self, busy: float) -> float:
        """Return the longest interval at a busy share of the loop.

        Up to ROOM it is `soon`, from FULL on `longest`, and between them on a line.
        """
        way = (busy - self.ROOM) / (self.FULL - self.ROOM)
        return self._soon + (self._longest - self._soon) * min(max(way, 0.0), 1.0)

    def record(self, spent: float, now: float, *, cpu: float, arrivals: int = 1) -> None:
        """Take the time that a flush took, which ended at `now`, for entries that came in so many
        batches. `cpu` is the CPU time of the loop's thread so far."""
        self._spent += spent
        self._flushes += 1
        self._arrivals += arrivals
        elapsed = now - self._began
        if elapsed < self.WINDOW:
            return
        flushing = self._spent / elapsed
        busy = max((cpu - self._cpu) / elapsed, flushing)
        joined = self._arrivals / self._flushes
        # Each batch by itself, as far as can be told from those that were joined.
        single = flushing * joined * (self._SINGLE if joined > 1.2 else 1.0)
        # With entries always waiting, the share is inversely proportional to
        # the interval: this reaches the target in one step. Where entries are
        # rarer it takes a few, hence the bounds on a step.
        factor = 0.5 if single <= self.ROOM else min(max(flushing / self._share, 0.5), 2.0)
        before = max(self.interval, 0.001)
        # A longer interval is what has made room: it is given up step by step.
        longest = max(self.longest_at(busy), before * self._YIELD)
        self.interval = max(min(before * factor, longest, self._longest), self._shortest)
        self._began = now
        self._cpu = cpu
        self._spent = 0.0
        self._flushes = self._arrivals = 0
