"""Where a stream has left entries out."""

from collections import deque


class Holes:
    """The newest holes of a stream, of one epoch."""

    def __init__(self, *, most: int) -> None:
        #: The offset before each, and the last that is in it.
        self._holes: deque[tuple[int, int]] = deque(maxlen=most)

    def add(self, before: int, last: int) -> None:
        """Note that the stream went on behind `last` after `before`."""
        self._holes.append((before, last))

    def clear(self) -> None:
        """Forget them: the log is another one."""
        self._holes.clear()

    def next(self, offset: int) -> int | None:
        """Return where the next hole behind `offset` begins: `offset` itself within one."""
        for before, last in self._holes:
            if last > offset:
                return max(before, offset)
        return None
