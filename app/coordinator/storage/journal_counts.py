"""How many records of each class lie before places of a journal, without reading it.

The index counts them at the end of each block. Within a block the heads of
records are read, unless all of it is of one class. Where the index or the
journal is damaged, what lies between two good marks is read, if it is little.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.coordinator.storage.journal import JournalReader
from app.coordinator.storage.journal_index import Index
from app.coordinator.storage.records import (
    CLASSES,
    MAX_HEAD,
    Mark,
    Slice,
    own_number,
    record_size,
)

#: Bytes of a record's beginning from which its class is told.
HEAD: Final = 32
#: Bytes that are read at once where heads are looked at.
_WINDOW: Final = 8 * 1024
#: Bytes between two good marks that are read in full.
_LITTLE: Final = 4 * 1024**2

Counts = tuple[int, ...]


class IndexLost(Exception):
    """Most of the journal is not in its index: nothing can be counted without reading it."""


@dataclass(slots=True)
class Counted:
    """Records by class, and what was found to be lost on the way."""

    #: In the order of the numbers that were asked for: how many up to each.
    counts: list[Counts] = field(default_factory=list)
    #: Ranges of numbers, both included, ascending.
    lost: list[tuple[int, int]] = field(default_factory=list)


def counts_through(
    journal: JournalReader, numbers: Sequence[int], *, class_of: Callable[[bytes], int]
) -> Counted:
    """Count the records up to and with each of `numbers`, which ascend and are there.

    `class_of` tells the class of a record from its first HEAD bytes. Lost
    records count as what the index says they are. Raises IndexLost, OSError.
    """
    return _Counting(journal, class_of).through(numbers)


def holes(journal: JournalReader) -> list[tuple[int, int]]:
    """What writers found to be lost when they opened the journal, by number, ascending."""
    index = journal.marks()
    found = []
    for place in index.repeated():
        mark = index.entry(place)
        before_place, before = index.borne_out(place - 2)
        if mark is None or mark.number <= before.number:
            continue
        if before_place < place - 2 and mark.position - before.position > _LITTLE:
            continue
        good = journal.good_end(before.cursor)
        if good.number < mark.number:
            found.append((good.number + 1, mark.number))
    return found


class _Counting:
    def __init__(self, journal: JournalReader, class_of: Callable[[bytes], int]) -> None:
        self._journal = journal
        self._class_of = class_of
        self._found = Counted()

    def through(self, numbers: Sequence[int]) -> Counted:
        index = self._journal.marks()
        block = at = 0
        while at < len(numbers):
            block += bisect_right(
                range(block, len(index)), numbers[at], key=lambda place: index[place].number
            )
            behind = _count_below(numbers, at, index[block].number if block < len(index) else None)
            self._count_in(index, block, numbers[at:behind])
            at = behind
        return self._found

    def _count_in(self, index: Index, block: int, numbers: Sequence[int]) -> None:
        """Numbers that lie behind the mark before a block, and before its end."""
        begin_at, begin = index.borne_out(block - 1)
        end_at, end = index.borne_out(block) if block < len(index) else (block, None)
        sound = (begin_at, end_at) == (block - 1, block)
        if sound and numbers[-1] == begin.number:
            self._found.counts += [begin.counts] * len(numbers)
            return
        if sound and end is not None and (kind := _only_class(begin, end)) is not None:
            self._found.counts += [
                _plus(begin.counts, kind, number - begin.number) for number in numbers
            ]
            return
        counts = self._walk(begin, numbers) if sound else None
        if counts is None:
            counts = self._read(begin, end, numbers)
        self._found.counts += counts

    def _walk(self, begin: Mark, numbers: Sequence[int]) -> list[Counts] | None:
        """Count heads behind a mark; None if what is there is damaged."""
        counts = list(begin.counts)
        found: list[Counts] = [begin.counts for number in numbers if number == begin.number]
        position, start, window = begin.position, 0, b""
        for number in range(begin.number + 1, numbers[-1] + 1):
            at = position - start
            if at + HEAD > len(window):
                window = os.pread(self._journal.file, _WINDOW, position)
                start, at = position, 0
            head = window[at : at + HEAD]
            if own_number(head[:MAX_HEAD], self._journal.kind) != number:
                return None
            counts[self._class_of(head)] += 1
            position += record_size(head)
            found += [tuple(counts) for each in numbers if each == number]
        return found

    def _read(self, begin: Mark, end: Mark | None, numbers: Sequence[int]) -> list[Counts]:
        """Count the records themselves from one mark to another, and what of them is lost."""
        size = (end.position if end else os.fstat(self._journal.file).st_size) - begin.position
        if size > _LITTLE:
            if end is None:
                raise IndexLost
            return [_share(begin, end, number) for number in numbers]
        kinds: dict[int, int] = {}
        known = begin.number
        pieces = (
            self._journal.between(begin.cursor, end.cursor)
            if end
            else self._journal.to_end(begin.cursor)
        )
        for piece in pieces:
            known = self._take(piece, known, kinds)
        counts = list(begin.counts)
        found = []
        before = begin.number
        for number in numbers:
            for each in range(before + 1, number + 1):
                # Lost ones are of the class that a writer would count them as.
                counts[kinds.get(each, 0)] += 1
            before = number
            found.append(tuple(counts))
        return found

    def _take(self, piece: Slice, known: int, kinds: dict[int, int]) -> int:
        """Note the classes of a slice's records. Returns the number of the last."""
        if piece.first - 1 > known:
            self._found.lost.append((known + 1, piece.first - 1))
        begin = 0
        for number, end in enumerate(piece.ends, piece.first):
            kinds[number] = self._class_of(piece.data[begin : min(end, begin + HEAD)])
            begin = end
        return max(piece.cursor.number, known)


def _count_below(numbers: Sequence[int], start: int, end: int | None) -> int:
    """The place of the first of `numbers` from `start` on that is `end` or more."""
    while start < len(numbers) and (end is None or numbers[start] < end):
        start += 1
    return start


def _only_class(begin: Mark, end: Mark) -> int | None:
    """The class of all records between two marks; None if they are of several."""
    kinds = [kind for kind in range(CLASSES) if begin.counts[kind] != end.counts[kind]]
    return kinds[0] if len(kinds) == 1 else None


def _plus(counts: Counts, kind: int, more: int) -> Counts:
    return (*counts[:kind], counts[kind] + more, *counts[kind + 1 :])


def _share(begin: Mark, end: Mark, number: int) -> Counts:
    """About how many there are up to a number, as if all classes were spread evenly."""
    part, whole = number - begin.number, end.number - begin.number
    counts = [
        before + (behind - before) * part // whole
        for before, behind in zip(begin.counts, end.counts, strict=True)
    ]
    counts[0] += number - sum(counts)
    return tuple(counts)
