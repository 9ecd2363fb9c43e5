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
    """When one feed has flushed. Times are in seconds."""

    #: When the last flush began, and how long it took.
    began: float = float("-inf")
    took: float = 0.0

    def due(self, interval: float) -> float:
        """Return when the next flush is due.

        From when an entry is held back until the last watcher has it, it takes an interval
        and a little, unless the writing takes most of it.
        """
        late = max(self.took - interval / 8, 0.0)
        return self.began + max(interval - late, interval / 2)

    def flushed(self, began: float, ended: float) -> None:
        """Note a flush."""
        self.began, self.took = began, ended - began


class FlushPacer:
    """Adjusts the interval between two flushes from what flushing costs and how busy the loop is.

    The measure is what writing each entry by itself would take of the loop's time: the
    demand. It does not depend on how many are joined now, so that an interval does not take
    away its own reason. Up to a demand of ROOM the interval is `shortest`. Above it so many
    are joined that flushing takes a share of the loop that falls from ROOM to `share`, which
    it has from a demand of CROWDED on; but the interval is never longer than `longest_at` the
    loop's busy share. Times are in seconds.
    """

    #: How often the interval is adjusted.
    WINDOW: Final = 0.25
    #: Busy share of the loop, and demand, up to which there is room.
    ROOM: Final = 0.7
    #: Demand from which on flushing takes `share`.
    CROWDED: Final = 2.0
    #: Busy share from which on the interval may be `longest`.
    FULL: Final = 0.9
    #: What each further entry of a flush costs, of the first one: measured with 500 watchers.
    FURTHER: Final = 0.06
    #: How much of a change of demand or busy share counts after a WINDOW: what a moment brings,
    #: and what an adjustment itself changes, moves the interval a part of the way. Where flushes
    #: are rare an adjustment is about a longer time, and counts as several would have.
    _WEIGHT: Final = 0.3

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
        self._busy = 0.0
        self._demand = 0.0
        self._spent = 0.0
        self._flushes = 0
        self._entries = 0

    def longest_at(self, busy: float) -> float:
        """Return the longest interval at a busy share of the loop.

        Up to ROOM it is `soon`, from FULL on `longest`, and between them on a line.
        """
        way = (busy - self.ROOM) / (self.FULL - self.ROOM)
        return self._soon + (self._longest - self._soon) * min(max(way, 0.0), 1.0)

    def joined_at(self, demand: float) -> float:
        """Return how many entries a flush is to have at a demand: 1 or more, or infinite."""
        way = min(max((demand - self.ROOM) / (self.CROWDED - self.ROOM), 0.0), 1.0)
        share = self.ROOM + (self._share - self.ROOM) * way
        # A flush of n takes 1 + FURTHER * (n - 1) times what one of a single entry takes.
        left = share - demand * self.FURTHER
        return max(demand * (1 - self.FURTHER) / left, 1.0) if left > 0 else float("inf")

    def record(self, spent: float, now: float, *, cpu: float, entries: int = 1) -> None:
        """Take the time that a flush of so many entries took, which ended at `now`.

        `cpu` is the CPU time of the loop's thread so far.
        """
        self._spent += spent
        self._flushes += 1
        self._entries += entries
        elapsed = now - self._began
        if elapsed < self.WINDOW:
            return
        flushing = self._spent / elapsed
        busy = max((cpu - self._cpu) / elapsed, flushing)
        joined = max(self._entries / self._flushes, 1.0)
        demand = flushing * joined / (1 + self.FURTHER * (joined - 1))
        weight = 1 - (1 - self._WEIGHT) ** (elapsed / self.WINDOW)
        self._busy += (busy - self._busy) * weight
        self._demand += (demand - self._demand) * weight
        if self._demand <= self.ROOM:
            factor = 0.5
        else:
            # Where entries come in less often than once in an interval, it takes a few steps.
            factor = min(max(self.joined_at(self._demand) / joined, 0.5), 2.0)
        interval = max(self.interval, 0.001) * factor
        self.interval = max(min(interval, self.longest_at(self._busy)), self._shortest)
        self._began = now
        self._cpu = cpu
        self._spent = 0.0
        self._flushes = self._entries = 0
