"""Append-only files of records, with a sparse index, for one writer and any number of readers.

Here are the readers; `journal_writer` has the writer, `records` the format.

The index beside a journal (`<name>.index`, see `journal_index`) has an entry at
the end of each block of some hundred records. A record's class is one of
CLASSES small numbers, for a log its level. A reader finds any number, and any
count of records of a class, by bisecting the index and reading one block. The
index can always be made again from the file.

Bytes that are damaged on the disk end no read: it goes on with the next good
record, and the numbers of the records show the hole. In journals whose records
have no number of their own it ends there.
"""

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from app.coordinator.storage.damage import next_record
from app.coordinator.storage.journal_index import Index, index_path
from app.coordinator.storage.journal_sums import is_whole, sums_path
from app.coordinator.storage.records import (
    MAX_HEAD,
    READ,
    Cursor,
    Mark,
    RecordKind,
    Slice,
    Stop,
    own_number,
    record_ends,
)

_LIKELY: Final = 4096
#: Slices that are kept to be returned in the opposite order.
_KEPT: Final = 4
#: Bytes of a block that is looked at as a whole: no writer makes a longer one.
_LONGEST_PASSED: Final = 2 * READ

#: Whether a record in these bytes may be of interest.
Wanted: TypeAlias = Callable[[bytes], bool]


class JournalReader:
    """Reads a journal while another process may append to it. A context manager.

    Sees only whole records. Memory is bounded by a block, whatever the file's size.
    """

    def __init__(self, path: Path, *, kind: RecordKind) -> None:
        self._kind = kind
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._index: int | None = None
        try:
            self._index = _open_beside(index_path(path))
            self._sums = _open_beside(sums_path(path))
        except BaseException:
            os.close(self._file)
            if self._index is not None:
                os.close(self._index)
            raise

    def __enter__(self) -> Self:
        """Nothing more to open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        for file in (self._index, self._sums):
            if file is not None:
                os.close(file)

    def read(self, cursor: Cursor, *, limit: int, max_bytes: int = READ) -> Slice:
        """At most `limit` records behind `cursor`, and at most `max_bytes` unless the first
        alone is larger.

        The first has the number behind the cursor's, or a higher one where records are
        lost. A slice without records is the end for now; its cursor is behind those that
        are lost there.
        """
        piece, stop = _read(self._file, cursor, self._kind, limit=limit, max_bytes=max_bytes)
        return piece if piece.count else self._behind_damage(piece.cursor, stop, limit, max_bytes)

    def piece(self, position: int, *, limit: int, size: int) -> Slice:
        """At most `limit` whole records from the one on that begins at `position`, of the next
        `size` bytes; none if none begins there. The journal's records are numbered."""
        number = own_number(os.pread(self._file, MAX_HEAD, position), self._kind)
        cursor = Cursor((number or 1) - 1, position)
        if number is None:
            return Slice(b"", [], cursor)
        return _read(self._file, cursor, self._kind, limit=limit, size=size)[0]

    def record(self, position: int) -> bytes:
        """The record that begins at `position`, frame included. Raises EOFError if none does.

        The journal's records are numbered.
        """
        number = own_number(os.pread(self._file, MAX_HEAD, position), self._kind)
        if number is None:
            raise EOFError(position)
        for size in (_LIKELY, READ):
            data = os.pread(self._file, size, position)
            ends, _ = record_ends(data, self._kind, number, most=1)
            if ends:
                return data[: ends[0]]
        raise EOFError(position)

    def last(self) -> int:
        """The number of the last record, be it lost."""
        index = self.marks()
        cursor = index.before(len(index)).cursor
        while (piece := self.read(cursor, limit=READ)).count:
            cursor = piece.cursor
        return max(piece.cursor.number, self._lost_end(piece.cursor, index).number)

    def locate(self, number: int) -> Cursor:
        """The place after record `number`, be it lost, or the end where there are fewer."""
        index = self.marks()
        block = bisect_right(range(len(index)), number, key=lambda at: index[at].number)
        cursor = index.before(block).cursor
        while cursor.number < number:
            piece = self.read(cursor, limit=number - cursor.number)
            if not piece.count:
                end = self._lost_end(piece.cursor, index)
                return Cursor(min(end.number, number), end.position)
            if piece.first > number:
                return Cursor(number, cursor.position)
            cursor = piece.part(0, number - piece.first + 1).cursor
        return cursor

    def block_of(self, number: int) -> Mark:
        """The last mark of the index at or before the place after record `number`."""
        index = self.marks()
        return index.before(
            bisect_right(range(len(index)), number, key=lambda at: index[at].number)
        )

    def block_before(self, count: int, classes: range) -> Mark:
        """The last mark before which at most `count` records of `classes` lie."""
        index = self.marks()
        return index.before(
            bisect_right(range(len(index)), count, key=lambda at: index[at].count(classes))
        )

    def blocks_with(
        self, cursor: Cursor, classes: range, *, wanted: Wanted | None = None
    ) -> Iterator[Slice]:
        """What lies behind `cursor`, but for whole blocks that have no record of `classes`.

        Slices say what is lost before them; one without records says it of a block's end.
        Blocks that are as they were written and of whose bytes `wanted` is not true are
        passed over: a slice without records says so.
        """
        index = self.marks()
        block = bisect_right(range(len(index)), cursor.position, key=lambda at: index[at].position)
        while (block := index.next_with(block, classes)) < len(index):
            begin = index.before(block)
            if begin.position > cursor.position:
                cursor = begin.cursor
            end = index[block]
            if cursor == begin.cursor and (passed := self._pass_over(block, begin, end, wanted)):
                yield passed
                cursor = passed.cursor
            else:
                for piece in self.between(cursor, end.cursor):
                    yield piece
                    cursor = piece.cursor
            block += 1
        if (end := index.before(len(index))).position > cursor.position:
            cursor = end.cursor
        yield from self.to_end(cursor)

    def blocks_before(
        self, number: int, classes: range, *, wanted: Wanted | None = None
    ) -> Iterator[Slice]:
        """What lies before record `number`, from the end to the beginning, but for whole blocks
        that have no record of `classes`.

        Slices say what is lost before them, as those of `blocks_with`. The first
        ones may go beyond `number`.
        """
        index = self.marks()
        block = bisect_right(range(len(index)), number - 1, key=lambda at: index[at].number)
        if block == len(index):
            yield from self.backward(self.to_end(index.before(block).cursor))
            block -= 1
        while (block := index.last_with(block, classes)) >= 0:
            begin, end = index.before(block), index[block]
            if passed := self._pass_over(block, begin, end, wanted):
                yield passed
            else:
                yield from self.backward(self.between(begin.cursor, end.cursor))
            block -= 1

    def _pass_over(self, block: int, begin: Mark, end: Mark, wanted: Wanted | None) -> Slice | None:
        """A slice in place of a block of which nothing is wanted, and nothing is damaged."""
        size = end.position - begin.position
        if wanted is None or self._sums is None or not 0 < size <= _LONGEST_PASSED:
            return None
        data = os.pread(self._file, size, begin.position)
        if len(data) < size or wanted(data) or not is_whole(self._sums, block, data):
            return None
        count = end.number - begin.number
        return Slice(b"", [], end.cursor, passed=count, passed_bytes=size)

    def grew(self, cursor: Cursor) -> bool:
        """Whether anything is behind a place."""
        return os.fstat(self._file).st_size > cursor.position

    @property
    def kind(self) -> RecordKind:
        """What its records are."""
        return self._kind

    @property
    def file(self) -> int:
        """The open file of the records, which stays the reader's."""
        return self._file

    def between(self, cursor: Cursor, end: Cursor) -> Iterator[Slice]:
        """What lies from one place to another, the end of a block."""
        while cursor.position < end.position:
            size = min(end.position - cursor.position, READ)
            piece, stop = _read(self._file, cursor, self._kind, limit=READ, size=size)
            if piece.count:
                yield piece
                cursor = piece.cursor
                continue
            found = None
            if self._kind.numbered:
                # A record that goes beyond its block is none.
                start = cursor.position + (stop is Stop.PARTIAL)
                found = next_record(self._file, self._kind, cursor, start=start)
            behind = found if found and found.position < end.position else end
            yield Slice(b"", [], behind, lost=behind.number - cursor.number)
            cursor = behind

    def to_end(self, cursor: Cursor) -> Iterator[Slice]:
        """What lies behind a place. The last slice has no records."""
        while (piece := self.read(cursor, limit=READ)).count:
            yield replace(piece, lost=piece.first - 1 - cursor.number)
            cursor = piece.cursor
        yield replace(piece, lost=piece.cursor.number - cursor.number)

    def good_end(self, cursor: Cursor) -> Cursor:
        """The place behind the records that follow `cursor` without a hole."""
        while True:
            piece, _ = _read(self._file, cursor, self._kind, limit=READ)
            if not piece.count:
                return cursor
            cursor = piece.cursor

    def backward(self, pieces: Iterator[Slice]) -> Iterator[Slice]:
        """Slices in the opposite order. Without an index they may be the whole journal: of most
        of them nothing is kept but their places."""
        places: list[tuple[Cursor, int, int]] = []
        kept: deque[Slice] = deque(maxlen=_KEPT)
        for piece in pieces:
            if len(kept) == _KEPT:
                old = kept[0]
                places.append((Cursor(old.first - 1, old.position), old.count, old.lost))
            kept.append(piece)
        yield from reversed(kept)
        for cursor, count, lost in reversed(places):
            if count:
                piece, _ = _read(self._file, cursor, self._kind, limit=count)
                yield replace(piece, lost=lost)
            else:
                yield Slice(b"", [], cursor, lost=lost)

    def marks(self) -> Index:
        """The index as it is now."""
        return Index(self._index, self._file, self._kind)

    def _behind_damage(self, cursor: Cursor, stop: Stop, limit: int, max_bytes: int) -> Slice:
        if stop is Stop.END or not self._kind.numbered:
            return Slice(b"", [], cursor)
        index = self.marks()
        if stop is Stop.PARTIAL and not index.reaches_behind(cursor.position):
            return Slice(b"", [], cursor)
        # What was being written a moment ago is whole by now, or the index would not reach so far.
        piece, stop = _read(self._file, cursor, self._kind, limit=limit, max_bytes=max_bytes)
        if piece.count:
            return piece
        start = cursor.position + (stop is Stop.PARTIAL)
        found = next_record(self._file, self._kind, cursor, start=start)
        if found is None:
            return Slice(b"", [], self._lost_end(cursor, index))
        piece, _ = _read(self._file, found, self._kind, limit=limit, max_bytes=max_bytes)
        return piece

    def _lost_end(self, cursor: Cursor, index: Index) -> Cursor:
        """The place behind all that is lost, where no good record lies behind `cursor`."""
        known = index.last_known()
        if known.number <= cursor.number or known.position <= cursor.position:
            return cursor
        return Cursor(known.number, os.fstat(self._file).st_size)


def read_behind(
    path: str, cursor: Cursor, *, kind: RecordKind, limit: int, max_bytes: int = READ
) -> Slice:
    """What `JournalReader.read` does, with one descriptor that is open meanwhile and no longer.

    Where bytes are damaged it takes a second one. Raises OSError.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        piece, stop = _read(file, cursor, kind, limit=limit, max_bytes=max_bytes)
    finally:
        os.close(file)
    if piece.count or stop is Stop.END:
        return piece
    with JournalReader(Path(path), kind=kind) as reader:
        return reader.read(cursor, limit=limit, max_bytes=max_bytes)


def _read(
    file: int,
    cursor: Cursor,
    kind: RecordKind,
    *,
    limit: int,
    max_bytes: int = READ,
    size: int = READ,
) -> tuple[Slice, Stop]:
    data = os.pread(file, size, cursor.position)
    ends, stop = record_ends(data, kind, cursor.number + 1, most=limit)
    ends = ends[: max(bisect_right(ends, max_bytes), 1)]
    if not ends:
        return Slice(b"", ends, cursor), stop
    return Slice(
        data[: ends[-1]],
        ends,
        Cursor(cursor.number + len(ends), cursor.position + ends[-1]),
    ), stop


def _open_beside(path: str) -> int | None:
    """An open file that belongs to a journal; None if it is gone: it can be read without."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
