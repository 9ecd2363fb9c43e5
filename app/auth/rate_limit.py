"""How often a caller may ask: a token bucket for each, as one number."""

from collections import OrderedDict
from collections.abc import Callable, Hashable


class RateLimit:
    """Token buckets of `burst` tokens that fill up with `rate` tokens a second.

    Kept in the form of the generic cell rate algorithm (ITU-T I.371): of a
    bucket only the moment at which it will be full again. A full one is
    forgotten, since it is like one that was never touched. There are at most
    `size`; beyond that, whoever asked longest ago begins anew.
    """

    def __init__(self, *, rate: float, burst: int, size: int, clock: Callable[[], float]) -> None:
        self._interval = 1 / rate
        self._depth = burst / rate
        self._size = size
        self._clock = clock
        #: By when the bucket was last taken from, the longest ago first.
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def take(self, caller: Hashable) -> float:
        """Take a token; 0, or for how many seconds there is none to be taken."""
        now = self._clock()
        self._forget_full(now)
        full_at = max(self._full_at.get(caller, now), now) + self._interval
        wait = full_at - now - self._depth
        # A billionth: what adding up the same fraction many times may be off by.
        if wait > 1e-9:
            return wait
        self._full_at[caller] = full_at
        self._full_at.move_to_end(caller)
        if len(self._full_at) > self._size:
            self._full_at.popitem(last=False)
        return 0.0

    def is_empty(self, caller: Hashable) -> bool:
        """Return whether `take` would find no token."""
        now = self._clock()
        return self._full_at.get(caller, now) - now + self._interval - self._depth > 1e-9

    def __len__(self) -> int:
        """Return the number of buckets."""
        return len(self._full_at)

    def _forget_full(self, now: float) -> None:
        # Two for each that may be added, so that the number follows who is active.
        for _ in range(2):
            oldest = next(iter(self._full_at), None)
            if oldest is None or self._full_at[oldest] > now:
                return
            del self._full_at[oldest]
