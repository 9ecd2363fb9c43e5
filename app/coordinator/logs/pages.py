"""Pages of a log: the entries that pass a filter, read forward or backward, within bounds.

Whatever is lost of the part that was looked at, and may have passed, is named:
a page that found nothing says that nothing was there to find.
"""

import time
from dataclasses import dataclass, field
from typing import Final

from app.coordinator.logs.log import LogReader, damaged_entry, decoded
from app.coordinator.storage.journal import Wanted
from app.coordinator.storage.records import Cursor, Slice
from app.log_filter import LogFilter
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogRange

#: Bytes of a log that are looked at for one page, and seconds, at most.
MAX_SCANNED: Final = 64 * 1024 * 1024
MAX_SECONDS: Final = 2.0
#: The least level that is not every level.
_INFO: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of one page."""

    entries: int
    #: Of the entries, unless the first alone is larger.
    size_bytes: int
    scanned_bytes: int = MAX_SCANNED
    #: One entry at least is looked at, however long it takes.
    seconds: float = MAX_SECONDS


@dataclass(frozen=True, slots=True)
class ReadPage:
    """Entries by offset; all that lies from `first` to `last` was looked at for them."""

    entries: list[LogEntry]
    #: Higher than `last` if nothing was looked at.
    first: int
    last: int
    #: By offset: what is lost of that part.
    missing: list[LogRange] = field(default_factory=list)


class _Page:
    """A page that is being read."""

    def __init__(self, condition: LogFilter, bounds: Bounds) -> None:
        self.entries: list[LogEntry] = []
        self.missing: list[LogRange] = []
        self._condition = condition
        #: Whether an entry that is damaged is told in its place; otherwise as missing.
        self._stands_in = not _looks_at_more_than_the_level(condition)
        self._bounds = bounds
        self._size = self._scanned = 0
        self._until = time.monotonic() + bounds.seconds

    @property
    def full(self) -> bool:
        """Whether there are as many entries as may be, or the time is over."""
        return len(self.entries) == self._bounds.entries or time.monotonic() >= self._until

    @property
    def over(self) -> bool:
        """Whether it is full, or as much was looked at as may be."""
        return self.full or self._scanned >= self._bounds.scanned_bytes

    @property
    def wanted(self) -> Wanted | None:
        """Whether an entry may pass whose bytes are among others; None if that takes a look at
        each."""
        condition = self._condition
        return (lambda data: condition.candidate(data) >= 0) if condition.judges_text else None

    def decoded(self, piece: Slice) -> list[LogEntry | None] | None:
        """The entries of a slice; None in place of all if none passes, and none is damaged."""
        self._scanned += len(piece.data) + piece.passed_bytes
        if self._condition.judges_text and self._condition.candidate(piece.data) < 0:
            entries = decoded(piece)
            return entries if any(entry is None for entry in entries) else None
        return decoded(piece)

    def add(self, offset: int, entry: LogEntry | None) -> bool:
        """Take an entry in if it passes. Returns False if it passes and does not fit any more."""
        if entry is None:
            if not self._stands_in:
                self.miss(offset, offset)
                return True
            entry = damaged_entry(offset)
        if not passes(self._condition, entry):
            return True
        size = entry.ByteSize()
        if self.entries and self._size + size > self._bounds.size_bytes:
            return False
        self._size += size
        self.entries.append(entry)
        return True

    def miss(self, first: int, last: int) -> None:
        """Note that entries are lost."""
        if first <= last:
            self.missing.append(LogRange(first=first, last=last))


def passes(condition: LogFilter, entry: LogEntry) -> bool:
    """Whether an entry passes a filter."""
    time_ns = 0
    if condition.since is not None or condition.until is not None:
        time_ns = entry.timestamp.seconds * 1_000_000_000 + entry.timestamp.nanos
    return condition.passes(
        level=entry.level,
        message=entry.message,
        source=entry.source,
        rank=entry.rank,
        timestamp_ns=time_ns,
    )


def _looks_at_more_than_the_level(condition: LogFilter) -> bool:
    return condition != LogFilter(min_level=condition.min_level)


def read_forward(
    log: LogReader, start: Cursor, *, condition: LogFilter, through: int, bounds: Bounds
) -> ReadPage:
    """The first entries that pass behind `start`, none behind offset `through`. Blocks.

    Without a filter they are dense: a page ends before those that are lost.
    """
    first = start.number + 1
    if start.number >= through:
        return ReadPage([], first, start.number)
    if condition.min_level < _INFO and not _looks_at_more_than_the_level(condition):
        return _read_all(log, start, through=through, bounds=bounds, condition=condition)
    page = _Page(condition, bounds)
    last = through
    for piece in log.blocks_behind(start, min_level=condition.min_level, wanted=page.wanted):
        page.miss(piece.first - piece.lost, min(piece.first - 1, through))
        last = _take_forward(page, piece, through)
        if last < piece.cursor.number or (page.over and last >= first):
            break
    else:
        last = through
    return ReadPage(page.entries, first, last, _joined(page.missing))


def _take_forward(page: _Page, piece: Slice, through: int) -> int:
    """Take in what passes of a slice. Returns up to which offset it was looked at."""
    entries = page.decoded(piece)
    if entries is None:
        return min(piece.cursor.number, through)
    for offset, entry in enumerate(entries, piece.first):
        if offset > through or not page.add(offset, entry):
            return min(offset - 1, through)
        if page.full:
            return offset
    return min(piece.cursor.number, through)


def _read_all(
    log: LogReader, start: Cursor, *, through: int, bounds: Bounds, condition: LogFilter
) -> ReadPage:
    page = _Page(condition, bounds)
    first = start.number + 1
    for piece in log.slices(start, limit=bounds.entries + 1):
        for offset, entry in enumerate(decoded(piece), piece.first):
            if offset > through:
                return ReadPage(page.entries, first, through)
            dense = not page.entries or offset == page.entries[-1].offset + 1
            if not dense or not page.add(offset, entry):
                return ReadPage(page.entries, first, page.entries[-1].offset)
            if page.full:
                return ReadPage(page.entries, first, offset)
    return ReadPage(page.entries, first, through)


def read_backward(log: LogReader, before: int, *, condition: LogFilter, bounds: Bounds) -> ReadPage:
    """The last entries that pass before offset `before`, by offset. Blocks."""
    page = _Page(condition, bounds)
    first = 1
    for piece in log.blocks_before(before, min_level=condition.min_level, wanted=page.wanted):
        first = _take_backward(page, piece, before)
        if first > piece.first:
            break
        page.miss(piece.first - piece.lost, min(piece.first, before) - 1)
        first = min(piece.begin, before)
        if page.over and first < before:
            break
    else:
        first = 1
    page.entries.reverse()
    page.missing.reverse()
    return ReadPage(page.entries, first, before - 1, _joined(page.missing))


def _take_backward(page: _Page, piece: Slice, before: int) -> int:
    """Take in what passes of a slice. Returns from which offset on it was looked at."""
    entries = page.decoded(piece)
    if entries is None:
        return min(piece.first, before)
    for offset in range(min(piece.cursor.number, before - 1), piece.first - 1, -1):
        if not page.add(offset, entries[offset - piece.first]):
            return offset + 1
        if page.full:
            return offset
    return min(piece.first, before)


def _joined(ranges: list[LogRange]) -> list[LogRange]:
    """Ascending ranges, each with a hole before the next."""
    joined: list[LogRange] = []
    for each in ranges:
        if joined and each.first <= joined[-1].last + 1:
            joined[-1].last = max(joined[-1].last, each.last)
        else:
            joined.append(each)
    return joined
