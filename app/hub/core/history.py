"""The newest log entries of one job, each as its SSE frame."""

from collections import deque
from collections.abc import Iterable, Sequence

from app.hub.core import frames
from app.hub.core.judging import Judging, Unjudged, judging_of, verdicts
from app.hub.upstream import LogRecord
from app.log_filter import LogFilter

#: What a filter said of an entry: nothing yet, no or yes.
_UNJUDGED, _FAILS, _PASSES = 0, 1, 2


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
        #: By filter, one byte for each entry; short of the newest until they are looked at.
        self._verdicts: dict[LogFilter, bytearray] = {}
        #: Evicted entries at the head of the lists.
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
        self._verdicts = {}
        self._dead = 0
        self._prefix = frames.log_prefix(epoch)
        self._arrivals.clear()

    def extend(self, records: Sequence[LogRecord]) -> None:
        """Take the entries behind `last`; the caller has checked that they are those."""
        prefix = self._prefix
        made = [frames.log_frame(prefix, offset, data) for offset, _, data in records]
        self._frames += made
        self._levels += bytes([level for _, level, _ in records])
        self.size += sum(map(len, made))

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
            self._drop(self._index(min(self._arrivals[0][0], keep_after)))
            self._tidy()

    def evict(self, limit: int, keep_after: int) -> None:
        """Drop the oldest entries until `size` is at most `limit`, none behind `keep_after`."""
        stop, last, size = self._dead, self._index(keep_after), self.size
        while size > limit and stop < last:
            size -= len(self._frames[stop])
            stop += 1
        self._drop(stop)
        self._tidy()

    def _tidy(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.base:
            self._arrivals.popleft()
        if self._dead >= self._COMPACT and self._dead * 2 >= len(self._frames):
            del self._frames[: self._dead]
            del self._levels[: self._dead]
            for said in self._verdicts.values():
                del said[: self._dead]
            self._dead = 0

    def _drop(self, stop: int) -> None:
        """Drop the entries before a place in the lists."""
        count = stop - self._dead
        if count > 0:
            self.size -= sum(map(len, self._frames[self._dead : stop]))
            self._frames[self._dead : stop] = [b""] * count
            self._dead = stop
            self.base += count

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

    def select(self, after: int, upto: int, log_filter: LogFilter) -> Sequence[bytes]:
        """Return the frames of the entries behind `after` up to `upto` that pass.

        They must have been judged, unless their level says all.
        """
        begin, stop = self._index(after), self._index(upto)
        chosen = self._frames[begin:stop]
        if judging_of(log_filter) is Judging.BY_LEVEL:
            levels, level = self._levels[begin:stop], log_filter.min_level
            if not levels or min(levels) >= level:
                return chosen
            return [frame for frame, own in zip(chosen, levels, strict=True) if own >= level]
        said = self._said(log_filter)[begin:stop]
        assert _UNJUDGED not in said
        return [frame for frame, own in zip(chosen, said, strict=True) if own == _PASSES]

    def tail(self, upto: int, count: int, log_filter: LogFilter) -> tuple[int, int]:
        """Find the `count` newest entries up to `upto` that pass, of those that were judged.

        Returns the offset before the first of them, and how many are missing
        because the history does not reach back to them, or was not judged so far.
        """
        if count == 0:
            return upto, 0
        values, least = self._levels, log_filter.min_level
        by_level = judging_of(log_filter) is Judging.BY_LEVEL
        if not by_level:
            values, least = self._said(log_filter), _PASSES
        for index in range(self._index(upto) - 1, self._dead - 1, -1):
            if values[index] >= least:
                count -= 1
                if count == 0:
                    return self.base + index - self._dead, 0
            elif not by_level and values[index] == _UNJUDGED:
                return self.base + index + 1 - self._dead, count
        return self.base, count

    # Filters

    def judge(self, filters: Iterable[LogFilter], after: int, upto: int) -> None:
        """Judge the entries behind `after` up to `upto` that these filters have not judged."""
        wanted = [each for each in filters if not self.judged(each, after, upto)]
        if wanted:
            begin, stop = self._index(after), self._index(upto)
            entries = [self._entry(index) for index in range(begin, stop)]
            for each, passed in zip(wanted, verdicts(entries, wanted), strict=True):
                self._said(each)[begin:stop] = bytes(map(_verdict, passed))

    def judged(self, log_filter: LogFilter, after: int, upto: int) -> bool:
        """Whether a filter has judged all entries behind `after` up to `upto`."""
        return _UNJUDGED not in self._said(log_filter)[self._index(after) : self._index(upto)]

    def unjudged(self, log_filter: LogFilter, after: int, upto: int) -> Sequence[Unjudged]:
        """Return the entries behind `after` up to `upto` that a filter has not judged."""
        said = self._said(log_filter)
        indices = range(self._index(after), self._index(upto))
        return [self._entry(index) for index in indices if said[index] == _UNJUDGED]

    def newest_unjudged(
        self, log_filter: LogFilter, upto: int, max_bytes: int
    ) -> Sequence[Unjudged]:
        """Return the newest entries up to `upto` that a filter has not judged, without a hole
        among them: up to `max_bytes` of them, at least one if there is any.
        """
        said = self._said(log_filter)
        stop = said.rfind(_UNJUDGED, self._dead, max(self._index(upto), self._dead)) + 1
        begin, size = stop, 0
        while begin > self._dead and said[begin - 1] == _UNJUDGED and size < max_bytes:
            begin -= 1
            size += len(self._frames[begin])
        return [self._entry(index) for index in range(begin, stop)]

    def take_verdict(self, log_filter: LogFilter, offset: int, *, passed: bool) -> None:
        """Take what a filter said of an entry; nothing if the entry has been evicted."""
        if self.base < offset <= self.last:
            self._said(log_filter)[self._index(offset) - 1] = _verdict(passed)

    def forget(self, log_filter: LogFilter) -> None:
        """Forget what a filter that nobody has any more said."""
        self._verdicts.pop(log_filter, None)

    def _said(self, log_filter: LogFilter) -> bytearray:
        said = self._verdicts.setdefault(log_filter, bytearray())
        said.extend(bytes(len(self._frames) - len(said)))
        return said

    def _entry(self, index: int) -> Unjudged:
        offset = self.base + index + 1 - self._dead
        return Unjudged(offset, self._levels[index], frames.data_of(self._frames[index]))

    def _index(self, offset: int) -> int:
        """Where in the lists the entry behind `offset` is."""
        return offset - self.base + self._dead

    def validate(self) -> None:
        """Check what must always hold; for tests."""
        live = self._frames[self._dead :]
        assert len(self._frames) == len(self._levels)
        assert all(len(said) <= len(self._frames) for said in self._verdicts.values())
        assert self.size == sum(map(len, live))
        assert all(live)
        assert not any(self._frames[: self._dead])


def _verdict(passed: bool) -> int:
    return _PASSES if passed else _FAILS
