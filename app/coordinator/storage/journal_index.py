"""The index of a journal: marks, each of which is believed only as far as the journal bears it out.

An entry is 40 bytes at the end of each block of records: the position in the
journal, and how many records of each class lie before it. Its bytes may be
damaged or missing. So a mark is a place to begin to read at only if the record
that begins there says the number that follows the mark's. A mark behind which
nothing can be read still tells how many records there were, see `last_known`.
"""

import os
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from app.coordinator.storage.records import (
    CLASSES,
    MAX_HEAD,
    MAX_NUMBER,
    READ,
    START,
    Mark,
    RecordKind,
    own_number,
)

#: An entry of the index: a position, and counts by class.
ENTRY: Final = struct.Struct(f"<{1 + CLASSES}Q")
#: Entries that are read at once.
_READ_ENTRIES: Final = 4096
#: Bytes of a journal between two entries, at most. A hole may have more, see `last_known`.
_LONGEST_BLOCK: Final = 4 * READ


def index_path(path: str | Path) -> str:
    """Where the index of a journal is."""
    return f"{path}.index"


class Index:
    """The marks of a journal in order, read entry by entry.

    In the place of a mark that is not borne out is the one before it.
    """

    def __init__(self, index: int | None, journal: int, kind: RecordKind) -> None:
        """`index` and `journal` are open files, which stay the caller's; no index is an empty
        one."""
        self._file = index
        self._journal = journal
        self._kind = kind
        self._size = os.fstat(journal).st_size
        self._count = 0 if index is None else os.fstat(index).st_size // ENTRY.size

    def __len__(self) -> int:
        """How many entries there are."""
        return self._count

    def __getitem__(self, at: int) -> Mark:
        """The mark at which block `at` ends."""
        if not 0 <= at < self._count:
            raise IndexError(at)
        return self.borne_out(at)[1]

    def borne_out(self, at: int) -> tuple[int, Mark]:
        """The last mark at place `at` or before it that is borne out, and its place; START has
        place -1."""
        while at >= 0:
            if (mark := self.entry(at)) is not None and self.is_borne_out(mark):
                return at, mark
            at -= 1
        return -1, START

    def positions(self, start: int, stop: int) -> Sequence[int]:
        """What the entries from place `start` up to `stop` say of their positions, true or not."""
        return [position for position, *_ in ENTRY.iter_unpack(self._bytes(start, stop))]

    def before(self, at: int) -> Mark:
        """The mark at which block `at` begins."""
        return self[at - 1] if at else START

    def repeated(self) -> Iterator[int]:
        """The places of entries that repeat the one before: a writer lost what lay before it."""
        before = b""
        for start in range(0, self._count, _READ_ENTRIES):
            data = self._bytes(start, min(start + _READ_ENTRIES, self._count))
            for at in range(0, len(data), ENTRY.size):
                entry = data[at : at + ENTRY.size]
                if entry == before:
                    yield start + at // ENTRY.size
                before = entry

    def reaches_behind(self, position: int) -> bool:
        """Whether records were written behind a position of the journal."""
        if self.last_known().position > position:
            return True
        return self._count > 0 and self[self._count - 1].position > position

    def last_known(self) -> Mark:
        """The newest entry, if its numbers can be those of this journal, else START.

        Nothing may be left of the records that it counts. It continues the entry
        before it by a block at most, or repeats it: so a writer tells a hole of any
        size. Of a journal that was cut, as by a power cut, nothing is known.
        """
        mark = self.entry(self._count - 1) if self._count else None
        if mark is None or mark.position > self._size:
            return START
        before = self.entry(self._count - 2) if self._count > 1 else START
        if before is None:
            return START
        records, size = mark.number - before.number, mark.position - before.position
        grown = all(now >= then for now, then in zip(mark.counts, before.counts, strict=True))
        if mark == before or (grown and records <= size <= _LONGEST_BLOCK):
            return mark
        return START

    def trusted(self) -> int:
        """How many entries there are up to the last one that is borne out."""
        count = self._count
        while count:
            mark = self.entry(count - 1)
            if mark is not None and self.is_borne_out(mark):
                return count
            count -= 1
        return 0

    def next_with(self, block: int, classes: range) -> int:
        """The first block from `block` on that has a record of `classes`; how many there are if
        none.

        Near ones are found in fewer steps than far ones.
        """
        passed = self.before(block).count(classes)
        low, step = block, 1
        while low + step <= self._count and self[low + step - 1].count(classes) == passed:
            low, step = low + step, 2 * step
        places = range(low, min(low + step, self._count))
        return low + bisect_left(places, passed + 1, key=lambda at: self[at].count(classes))

    def last_with(self, block: int, classes: range) -> int:
        """The last block up to `block` that has a record of `classes`; -1 if there is none."""
        if block < 0:
            return -1
        count = self[block].count(classes)
        if self.before(block).count(classes) < count:
            return block
        return (
            bisect_left(range(block), count, key=lambda at: self[at].count(classes))
            if count
            else -1
        )

    def entry(self, at: int) -> Mark | None:
        """An entry as it is there; None where it can be none."""
        position, *counts = ENTRY.unpack(self._bytes(at, at + 1))
        if position >= MAX_NUMBER or sum(counts) >= MAX_NUMBER:
            return None
        return Mark(position, tuple(counts))

    def _bytes(self, start: int, stop: int) -> bytes:
        """Entries; in place of those that were cut off meanwhile, some that can be none."""
        assert self._file is not None
        size = (stop - start) * ENTRY.size
        return os.pread(self._file, size, start * ENTRY.size).ljust(size, b"\xff")

    def is_borne_out(self, mark: Mark) -> bool:
        """Whether a record begins at a mark that has its number."""
        if mark.position > self._size:
            return False
        head = os.pread(self._journal, MAX_HEAD, mark.position)
        if not self._kind.numbered:
            return not head or head[0] == self._kind.tag
        return own_number(head, self._kind) == mark.number + 1
