"""The newest log entries of one job, each as its SSE frame."""

from collections import deque

from app.hub.core import frames
from app.hub.upstream import LogRecord


class History:
    """A dense, bounded run of entries: all offsets from `base + 1` to `last`.

    Owned by one feed's core; nothing in here does I/O.
    """

    #: Evicted entries are cut off the lists once there are this many of them
    #: and they are half of the list: an eviction costs amortised constant time.
    _COMPACT = 1024

    def __init__(self) -> None:
        #: Offset before the oldest entry that is kept.
        self.base = 0
        #: Bytes of the frames that are kept.
        self.size = 0
        self._frames: list[bytes] = []
        self._levels = bytearray()
        #: Evicted entries at the head of the two lists.
        self._dead = 0
        self._prefix = b""
        #: When entries up to an offset arrived, oldest first.
        self._arrivals: deque[tuple[int, float]] = deque()

    @property
    def last(self) -> int:
        """Offset of the newest entry; `base` when there is none."""
        return self.base + len(self._frames) - self._dead

    def clear(self, epoch: str, base: int) -> None:
        """Forget everything and begin behind `base`."""
        self.base = base
        self.size = 0
        self._frames = []
        self._levels = bytearray()
        self._dead = 0
        self._prefix = frames.log_prefix(epoch)
        self._arrivals.clear()

    def append(self, record: LogRecord) -> None:
        """Take the entry behind `last`; the caller has checked that it is that one."""
        frame = frames.log_frame(self._prefix, record.offset, record.data)
        self._frames.append(frame)
        self._levels.append(record.level)
        self.size += len(frame)

    def mark(self, now: float) -> None:
        """Note that what was appended since the last mark arrived at `now`."""
        self._arrivals.append((self.last, now))

    @property
    def oldest_arrival(self) -> float | None:
        """When the oldest entry that is kept arrived; None when there is none."""
        return self._arrivals[0][1] if self._arrivals else None

    def evict_oldest(self, keep_after: int) -> None:
        """Drop the entries that arrived first, together, but none behind `keep_after`."""
        if self._arrivals:
            upto = min(self._arrivals[0][0], keep_after)
            while self.base < upto:
                self._drop_oldest()
            self._tidy()

    def evict(self, limit: int, keep_after: int) -> None:
        """Drop the oldest entries until `size` is at most `limit`, none behind `keep_after`."""
        while self.size > limit and self.base < keep_after:
            self._drop_oldest()
        self._tidy()

    def _tidy(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.base:
            self._arrivals.popleft()
        if self._dead >= self._COMPACT and self._dead * 2 >= len(self._frames):
            del self._frames[: self._dead]
            del self._levels[: self._dead]
            self._dead = 0

    def _drop_oldest(self) -> None:
        self.size -= len(self._frames[self._dead])
        self._frames[self._dead] = b""
        self._dead += 1
        self.base += 1

    def cut(self, after: int, upto: int, max_bytes: int) -> int:
        """Return the offset up to which entries after `after` fit `max_bytes`, at least one."""
        frames_, index = self._frames, self._index(after)
        size = 0
        for offset in range(after + 1, upto + 1):
            size += len(frames_[index])
            index += 1
            if size > max_bytes:
                return max(offset - 1, after + 1)
        return upto

    def join(self, after: int, upto: int, level: int) -> bytes:
        """Join the frames of the entries behind `after` up to `upto` that pass `level`."""
        begin, stop = self._index(after), self._index(upto)
        levels = self._levels[begin:stop]
        chosen = self._frames[begin:stop]
        if levels and min(levels) < level:
            chosen = [frame for frame, own in zip(chosen, levels, strict=True) if own >= level]
        return b"".join(chosen)

    def tail(self, upto: int, count: int, level: int) -> tuple[int, int]:
        """Find the `count` newest entries up to `upto` that pass `level`.

        Returns the offset before the first of them, and how many are missing
        because the history does not reach back to them.
        """
        if count == 0:
            return upto, 0
        levels = self._levels
        for index in range(self._index(upto) - 1, self._dead - 1, -1):
            if levels[index] >= level:
                count -= 1
                if count == 0:
                    return self.base + index - self._dead, 0
        return self.base, count

    def _index(self, offset: int) -> int:
        """Where in the lists the entry behind `offset` is."""
        return offset - self.base + self._dead

    def validate(self) -> None:
        """Check what must always hold; for tests."""
        live = self._frames[self._dead :]
        assert len(self._frames) == len(self._levels)
        assert self.size == sum(map(len, live))
        assert all(live)
        assert not any(self._frames[: self._dead])
