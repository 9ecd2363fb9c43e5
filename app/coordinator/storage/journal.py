"""Append-only files of records, with a sparse index, for one writer and any number of readers.

Here are the format and the reader; `journal_writer` has the writer.

A record is a length-delimited protobuf field, `tag, varint length, payload`,
so that a slice of the file is a serialized message whose repeated field the
records are. Records are numbered densely from 1.

The index beside it (`<name>.index`) has an entry at the end of each block of
some hundred records: the position in the file, and how many records of each
class lie before it. A record's class is one of CLASSES small numbers, for a
log its level. A reader finds any number, and any count of records of a class,
by bisecting the index and reading one block. The index can always be made
again from the file.
"""

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

CLASSES: Final = 4
#: An entry of the index: a position, and counts by class.
ENTRY: Final = struct.Struct(f"<{1 + CLASSES}Q")
#: Bytes that are read at once; the first record in them is always whole.
READ: Final = 256 * 1024
#: Payloads are at most this long.
MAX_PAYLOAD: Final = READ - 16
_LIKELY: Final = 4096


@dataclass(frozen=True, slots=True)
class Cursor:
    """A reader's place: `number` records, `position` bytes lie before it."""

    number: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A place between two records: bytes before it, and records of each class before it."""

    position: int
    counts: tuple[int, ...]

    @property
    def number(self) -> int:
        """The number of the record before this place; 0 at the start."""
        return sum(self.counts)

    @property
    def cursor(self) -> Cursor:
        """This place for a reader."""
        return Cursor(self.number, self.position)

    def count(self, classes: range) -> int:
        """How many records of `classes` lie before it."""
        return sum(self.counts[kind] for kind in classes)


START: Final = Mark(0, (0,) * CLASSES)


@dataclass(frozen=True, slots=True)
class Slice:
    """Whole records as they are in the file."""

    data: bytes
    #: Where in `data` each of them ends.
    ends: list[int]
    #: Behind the last of them.
    cursor: Cursor

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.ends)

    def payloads(self) -> Iterator[bytes]:
        """What is in them."""
        at = 0
        for end in self.ends:
            at += 1
            while self.data[at] > 0x7F:
                at += 1
            yield self.data[at + 1 : end]
            at = end


def frame(tag: int, payload: bytes) -> bytes:
    """A record."""
    length = len(payload)
    head = bytearray((tag,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + payload


def record_ends(data: bytes, tag: int, *, most: int = READ) -> list[int]:
    """Where each whole record in `data` ends, up to the first that is not whole or not one.

    At most `most` of them.
    """
    ends: list[int] = []
    at, size = 0, len(data)
    while at < size and data[at] == tag and len(ends) < most:
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


def index_path(path: Path) -> Path:
    """Where the index of a journal is."""
    return path.with_name(path.name + ".index")


class Index:
    """The index file as a sequence, read entry by entry."""

    def __init__(self, file: int, count: int) -> None:
        self._file = file
        self._count = count

    def __len__(self) -> int:
        """How many blocks there are."""
        return self._count

    def __getitem__(self, at: int) -> Mark:
        """The mark at which block `at` ends."""
        if not 0 <= at < self._count:
            raise IndexError(at)
        position, *counts = ENTRY.unpack(os.pread(self._file, ENTRY.size, at * ENTRY.size))
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
            self._index = os.open(index_path(path), os.O_RDONLY | os.O_CLOEXEC)
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

    def read(self, cursor: Cursor, *, limit: int, max_bytes: int = READ) -> Slice:
        """At most `limit` records behind `cursor`, and at most `max_bytes` unless the first
        alone is larger."""
        return _read(self._file, cursor, self._tag, limit=limit, max_bytes=max_bytes)

    def record(self, position: int) -> bytes:
        """The record that begins at `position`, frame included. Raises EOFError if none does."""
        for size in (_LIKELY, READ):
            data = os.pread(self._file, size, position)
            if ends := record_ends(data, self._tag, most=1):
                return data[: ends[0]]
        raise EOFError(position)

    def last(self) -> int:
        """The number of the last record."""
        index = self._open_index()
        cursor = index.before(len(index)).cursor
        while (piece := self.read(cursor, limit=READ)).count:
            cursor = piece.cursor
        return cursor.number

    def locate(self, number: int) -> Cursor:
        """The place behind record `number`, or the end where there are fewer."""
        index = self._open_index()
        block = bisect_right(range(len(index)), number, key=lambda at: index[at].number)
        cursor = index.before(block).cursor
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
            bisect_right(range(len(index)), count, key=lambda at: index[at].count(classes))
        )

    def blocks_with(self, cursor: Cursor, classes: range) -> Iterator[Slice]:
        """What lies behind `cursor`, but for whole blocks that have no record of `classes`."""
        index = self._open_index()
        block = bisect_right(range(len(index)), cursor.position, key=lambda at: index[at].position)
        while (block := _next_with(index, block, classes)) < len(index):
            begin, end = max(index.before(block).position, cursor.position), index[block]
            data = os.pread(self._file, end.position - begin, begin)
            cursor = end.cursor
            yield Slice(data, record_ends(data, self._tag), cursor)
            block += 1
        if (end := index.before(len(index))).position > cursor.position:
            cursor = end.cursor
        while (piece := self.read(cursor, limit=READ)).count:
            cursor = piece.cursor
            yield piece

    def _open_index(self) -> Index:
        return open_index(self._index, within=os.fstat(self._file).st_size)


def read_behind(path: str, cursor: Cursor, *, tag: int, limit: int, max_bytes: int = READ) -> Slice:
    """What `JournalReader.read` does, with one descriptor that is open meanwhile and no longer.

    Raises OSError.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read(file, cursor, tag, limit=limit, max_bytes=max_bytes)
    finally:
        os.close(file)


def _read(file: int, cursor: Cursor, tag: int, *, limit: int, max_bytes: int) -> Slice:
    data = os.pread(file, READ, cursor.position)
    ends = record_ends(data, tag, most=limit)
    fitting = max(bisect_right(ends, max_bytes), 1)
    ends = ends[:fitting]
    if not ends:
        return Slice(b"", ends, cursor)
    return Slice(
        data[: ends[-1]],
        ends,
        Cursor(cursor.number + len(ends), cursor.position + ends[-1]),
    )


def open_index(file: int, *, within: int) -> Index:
    """The entries of an index file that tell of the first `within` bytes of its journal.

    After a power cut there may be others.
    """
    count = os.fstat(file).st_size // ENTRY.size
    index = Index(file, count)
    while count and index[count - 1].position > within:
        count -= 1
    return Index(file, count)


def _next_with(index: Index, block: int, classes: range) -> int:
    """The first block from `block` on that has a record of `classes`; how many there are if none.

    Near ones are found in fewer steps than far ones.
    """
    passed = index.before(block).count(classes)
    low, step = block, 1
    while low + step <= len(index) and index[low + step - 1].count(classes) == passed:
        low, step = low + step, 2 * step
    places = range(low, min(low + step, len(index)))
    return low + bisect_left(places, passed + 1, key=lambda at: index[at].count(classes))
