"""The pauses between attempts at something that fails."""

import random


class Backoff:
    """Pauses that double from `shortest` to `longest` seconds, until `reset`.

    Each is shortened by a random share of up to `jitter`, so that many who
    failed together do not try again together.
    """

    def __init__(self, *, shortest: float, longest: float, jitter: float = 0.5) -> None:
        self._shortest = shortest
        self._longest = longest
        self._jitter = jitter
        self._next = min(shortest, longest)

    def pause(self) -> float:
        """Return the seconds to wait before the next attempt."""
        pause = self._next
        self._next = min(pause * 2, self._longest)
        return pause * random.uniform(1 - self._jitter, 1)

    def reset(self) -> None:
        """Begin with the shortest pause again: an attempt went well."""
        self._next = min(self._shortest, self._longest)
