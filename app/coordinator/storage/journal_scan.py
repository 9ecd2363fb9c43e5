"""Scans a journal's bytes from the end to the beginning, fast where they are of no interest.

Records are counted only in blocks that are of interest: elsewhere the index
tells which numbers lie there. What cannot be taken at its word, since bytes of
the index or of the journal are damaged, is read record by record.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from app.coordinator.storage.journal import JournalReader
from app.coordinator.storage.journal_index import Index
from app.coordinator.storage.records import (
    MAX_HEAD,
    READ,
    Mark,
    RecordKind,
    Slice,
    own_number,
    record_ends,
)

#: Bytes that are looked at together, unless one block has more.
_GROUP: Final = READ
#: More is read record by record: the index has no mark in it that is true.
_MOST: Final = 8 * READ
#: Entries of the index that are read together.
_MARKS: Final = 64


@dataclass(frozen=True, slots=True)
class Look:
    """A part of a journal that was looked at; the next one lies right before it."""

    #: The number of its first record, be it lost.
    first: int
    #: Bytes that were read for it.
    size: int
    #: Its records; None if it has none of interest. They may be in several looks.
    piece: Slice | None


def scan_before(
    journal: JournalReader, number: int, *, classes: range, wanted: Callable[[bytes], bool]
) -> Iterator[Look]:
    """What lies before record `number`, from the end to the beginning.

    The first looks may go beyond `number`. `wanted` tells of bytes whether a
    record among them may be of interest; records of other classes than
    `classes` are not. Of damaged records nothing is told. Raises OSError.
    """
    yield from _Scan(journal, classes, wanted).before(number)


class _Scan:
    def __init__(
        self, journal: JournalReader, classes: range, wanted: Callable[[bytes], bool]
    ) -> None:
        self._journal = journal
        self._classes = classes
        self._wanted = wanted
        self._kind: RecordKind = journal.kind

    def before(self, number: int) -> Iterator[Look]:
        index = self._journal.marks()
        block = bisect_right(range(len(index)), number - 1, key=lambda at: index[at].number)
        at, end = index.borne_out(block if block < len(index) else block - 1)
        if block == len(index):
            for piece in self._journal.backward(self._journal.to_end(end.cursor)):
                yield _look(piece)
        while at >= 0:
            place, begin = self._begin(index, at, end)
            yield from self._look_at(index, (place, begin), (at, end))
            at, end = place, begin

    def _begin(self, index: Index, at: int, end: Mark) -> tuple[int, Mark]:
        """A mark that is borne out, some blocks before the one at place `at`, which is `end`, and
        its place."""
        start = max(at - _MARKS, 0)
        known = index.positions(start, at)
        for place in range(at - 1, start - 1, -1):
            if end.position - known[place - start] >= _GROUP:
                mark = index.entry(place)
                if mark and _lies_before(mark, end) and index.is_borne_out(mark):
                    return place, mark
        return index.borne_out(start - 1)

    def _look_at(
        self, index: Index, first: tuple[int, Mark], last: tuple[int, Mark]
    ) -> Iterator[Look]:
        """Blocks from one mark to another."""
        (place, begin), (at, end) = first, last
        if begin.count(self._classes) == end.count(self._classes):
            yield Look(begin.number + 1, 0, None)
            return
        size = end.position - begin.position
        if size > _MOST:
            yield from self._record_by_record(begin, end)
            return
        data = os.pread(self._journal.file, size, begin.position)
        if len(data) == size and not self._wanted(data):
            yield Look(begin.number + 1, size, None)
            return
        while begin.position < end.position:
            at, mark = self._block(index, data, (place, begin), (at, end))
            yield from self._look_at_block(
                data[mark.position - begin.position : end.position - begin.position], mark, end
            )
            end = mark

    def _block(
        self, index: Index, data: bytes, first: tuple[int, Mark], last: tuple[int, Mark]
    ) -> tuple[int, Mark]:
        """The last mark between two that is borne out by `data`, which lies between them; the
        first if there is none."""
        (place, begin), (at, end) = first, last
        for between in range(at - 1, place, -1):
            mark = index.entry(between)
            if mark and _lies_before(mark, end) and _lies_before(begin, mark):
                head = mark.position - begin.position
                if own_number(data[head : head + MAX_HEAD], self._kind) == mark.number + 1:
                    return between, mark
        return first

    def _look_at_block(self, data: bytes, begin: Mark, end: Mark) -> Iterator[Look]:
        if begin.count(self._classes) == end.count(self._classes):
            yield Look(begin.number + 1, 0, None)
            return
        if len(data) == end.position - begin.position:
            if not self._wanted(data):
                yield Look(begin.number + 1, len(data), None)
                return
            ends, _ = record_ends(data, self._kind, begin.number + 1)
            if ends and ends[-1] == len(data) and len(ends) == end.number - begin.number:
                yield _look(Slice(data, ends, end.cursor))
                return
        yield from self._record_by_record(begin, end)

    def _record_by_record(self, begin: Mark, end: Mark) -> Iterator[Look]:
        for piece in self._journal.backward(self._journal.between(begin.cursor, end.cursor)):
            yield _look(piece)


def _look(piece: Slice) -> Look:
    return Look(piece.first - piece.lost, len(piece.data), piece)


def _lies_before(mark: Mark, other: Mark) -> bool:
    """Whether records lie between two marks, if both are true."""
    return mark.position < other.position and all(
        before <= behind for before, behind in zip(mark.counts, other.counts, strict=True)
    )
