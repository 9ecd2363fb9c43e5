"""Append-only files of records, with a sparse index, for one writer and any number of readers.

A record is a length-delimited protobuf field, `tag, varint length, payload`,
so that a slice of the file is a serialized message whose repeated field the
records are. Records are numbered densely from 1.

The index beside it (`<name>.index`) has an entry at the end of each block of
at most BLOCK_RECORDS records or about BLOCK_BYTES bytes: the position in the file, and
how many records of each class lie before it. A record's class is one of
CLASSES small numbers, for a log its level. A reader finds any number, and any
count of records of a class, by bisecting the index and reading one block. The
index can always be made again from the file.
"""

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

CLASSES: Final = 4
BLOCK_RECORDS: Final = 512
BLOCK_BYTES: Final = 256 * 1024
#: Payloads are at most this long, so that a reader's buffer always holds a whole record.
MAX_PAYLOAD: Final = 192 * 1024

_ENTRY = struct.Struct(f"<{1 + CLASSES}Q")
_READ = 256 * 1024


@dataclass(frozen=True, slots=True)
class Mark:
    """A place between two records: bytes before it, and records of each class before it."""

    position: int
    counts: tuple[int, ...]

    @property
    def number(self) -> int:
        """The number of the record before this place; 0 at the start."""
        return sum(self.counts)


START: Final = Mark(0, (0,) * CLASSES)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A reader's place: `number` records, `position` bytes lie before it."""

    number: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """Whole records as they are in the file."""

    data: bytes
    count: int
    #: Behind the last of them.
    cursor: Cursor


def frame(tag: int, payload: bytes) -> bytes:
    """A record."""
    length = len(payload)
    head = bytearray((tag,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + payload


def _ends(data: bytes, tag: int) -> list[int]:
    """Where each whole record in `data` ends, up to the first that is not whole or not one."""
    ends: list[int] = []
    at, size = 0, len(data)
    while at < size and data[at] == tag:
        at += 1
        length = shift = 0
        while True:
            if at >= size or shift > 28:
                return ends
            byte = data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        at += length
        if at > size:
            return ends
        ends.append(at)
    return ends


def _index_path(path: Path) -> Path:
    return path.with_name(path.name + ".index")


class JournalWriter:
    """The one writer of a journal. Opening it cuts off what a crash left half-written.

    `class_of` tells the class of a record from its bytes, frame included.
    """

    def __init__(self, path: Path, *, tag: int, class_of: Callable[[bytes], int]) -> None:
        self._tag = tag
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._index = os.open(
            _index_path(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640
        )
        self._block = START
        self._end = START
        self._recover(class_of)

    @property
    def number(self) -> int:
        """The number of the last record."""
        return self._end.number

    def append(self, records: Sequence[tuple[int, bytes]]) -> None:
        """Append (class, payload) pairs. All are in the file afterwards, or none (OSError)."""
        before = self._end
        data = bytearray()
        marks = []
        for kind, payload in records:
            data += frame(self._tag, payload)
            marks.append(self._advance(kind, before.position + len(data)))
        try:
            _write(self._file, bytes(data))
        except OSError:
            self._end = before
            os.ftruncate(self._file, before.position)
            raise
        self._write_index(marks)

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._index)

    def _advance(self, kind: int, position: int) -> Mark:
        counts = list(self._end.counts)
        counts[kind] += 1
        self._end = Mark(position, tuple(counts))
        return self._end

    def _write_index(self, marks: Sequence[Mark]) -> None:
        data = bytearray()
        for mark in marks:
            block = self._block
            if (
                mark.number - block.number >= BLOCK_RECORDS
                or mark.position - block.position >= BLOCK_BYTES
            ):
                data += _ENTRY.pack(mark.position, *mark.counts)
                self._block = mark
        try:
            _write(self._index, bytes(data))
        except OSError:
            # The records are in the file. The index may lag behind it, but not be torn.
            size = os.fstat(self._index).st_size // _ENTRY.size * _ENTRY.size
            os.ftruncate(self._index, size)
            self._block = _Index(self._index, size // _ENTRY.size).before(size // _ENTRY.size)

    def _recover(self, class_of: Callable[[bytes], int]) -> None:
        size = os.fstat(self._file).st_size
        count = os.fstat(self._index).st_size // _ENTRY.size
        index = _Index(self._index, count)
        while count and index[count - 1].position > size:
            count -= 1
        os.ftruncate(self._index, count * _ENTRY.size)
        if count:
            self._block = index[count - 1]
        self._end = self._block
        while True:
            start = self._end.position
            data = os.pread(self._file, _READ, start)
            ends = _ends(data, self._tag)
            if not ends:
                break
            marks = []
            before = 0
            for end in ends:
                marks.append(self._advance(class_of(data[before:end]), start + end))
                before = end
            self._write_index(marks)
        os.ftruncate(self._file, self._end.position)


class _Index:
    """The index file as a sequence, read entry by entry."""

    def __init__(self, file: int, count: int) -> None:
        self._file = file
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: int) -> Mark:
        if not 0 <= at < self._count:
            raise IndexError(at)
        position, *counts = _ENTRY.unpack(os.pread(self._file, _ENTRY.size, at * _ENTRY.size))
        return Mark(position, tuple(counts))

    def before(self, at: int) -> Mark:
        """The mark at which block `at` begins."""
        return self[at - 1] if at else START


class JournalReader:
    """Reads a journal while another process may append to it. A context manager.

    Sees only whole records. Memory is bounded by a block, whatever the file's size.
    """

    def __init__(self, path: Path, *, tag: int) -> None:
        self._tag = tag
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._index = os.open(_index_path(path), os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(self._file)
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
        os.close(self._index)

    def read(self, cursor: Cursor, *, limit: int, max_bytes: int = _READ) -> Slice:
        """At most `limit` records behind `cursor`, and at most `max_bytes` unless the first
        alone is larger."""
        data = os.pread(self._file, _READ, cursor.position)
        ends = _ends(data, self._tag)[:limit]
        fitting = max(bisect_right(ends, max_bytes), 1)
        ends = ends[:fitting]
        if not ends:
            return Slice(b"", 0, cursor)
        return Slice(
            data[: ends[-1]],
            len(ends),
            Cursor(cursor.number + len(ends), cursor.position + ends[-1]),
        )

    def last(self) -> int:
        """The number of the last record."""
        index = self._open_index()
        cursor = _cursor(index.before(len(index)))
        while (piece := self.read(cursor, limit=_READ)).count:
            cursor = piece.cursor
        return cursor.number

    def locate(self, number: int) -> Cursor:
        """The place behind record `number`, or the end where there are fewer."""
        index = self._open_index()
        block = bisect_right(range(len(index)), number, key=lambda at: index[at].number)
        cursor = _cursor(index.before(block))
        while cursor.number < number:
            piece = self.read(cursor, limit=number - cursor.number)
            if not piece.count:
                break
            cursor = piece.cursor
        return cursor

    def block_of(self, number: int) -> Mark:
        """The last mark of the index at or before the place behind record `number`."""
        index = self._open_index()
        return index.before(
            bisect_right(range(len(index)), number, key=lambda at: index[at].number)
        )

    def block_before(self, count: int, classes: range) -> Mark:
        """The last mark before which at most `count` records of `classes` lie."""
        index = self._open_index()
        return index.before(
            bisect_right(range(len(index)), count, key=lambda at: _count(index[at], classes))
        )

    def skip(self, cursor: Cursor, classes: range) -> Cursor:
        """Over whole blocks, from `cursor` on, that have no record of `classes`."""
        index = self._open_index()
        places = range(len(index))
        block = bisect_right(places, cursor.position, key=lambda at: index[at].position)
        passed = _count(index.before(block), classes)
        beyond = bisect_left(places, passed + 1, key=lambda at: _count(index[at], classes))
        # Entry `beyond` ends the first block that has such a record.
        return _cursor(index[beyond - 1]) if beyond > block else cursor

    def _open_index(self) -> _Index:
        return _Index(self._index, os.fstat(self._index).st_size // _ENTRY.size)


def _cursor(mark: Mark) -> Cursor:
    return Cursor(mark.number, mark.position)


def _count(mark: Mark, classes: range) -> int:
    return sum(mark.counts[kind] for kind in classes)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
