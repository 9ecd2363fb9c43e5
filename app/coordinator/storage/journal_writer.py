"""The one writer of a journal, see `journal`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from app.coordinator.storage.damage import next_record
from app.coordinator.storage.journal_index import ENTRY, Index, index_path
from app.coordinator.storage.journal_sums import UNKNOWN, SumWriter, sums_path
from app.coordinator.storage.records import (
    MAX_PAYLOAD,
    MIN_RECORD,
    READ,
    START,
    Mark,
    RecordKind,
    Stop,
    frame_head,
    record_ends,
    short_heads,
)

#: A block of the index ends when it has so many records or bytes.
BLOCK_RECORDS: Final = 128
BLOCK_BYTES: Final = 256 * 1024


class JournalWriter:
    """The one writer of a journal. Opening it cuts off what a crash left half-written.

    Damaged bytes stay where they are, and new records follow them: no number is
    given that a lost record may have had. `class_of` tells the class of a
    record from its bytes, frame included. Lost records are of class 0. With
    `sums` readers see without reading records that blocks are as they were written.
    """

    def __init__(
        self,
        path: Path,
        *,
        kind: RecordKind,
        class_of: Callable[[bytes], int],
        sums: bool = False,
    ) -> None:
        self._kind = kind
        self._class_of = class_of
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._index = -1
        self._sums = SumWriter(None)
        self._block = START
        self._end = START
        try:
            self._index = os.open(
                index_path(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640
            )
            if sums:
                self._sums = SumWriter(sums_path(path))
            self._recover()
        except BaseException:
            self._close_files()
            raise

    @property
    def number(self) -> int:
        """The number of the last record."""
        return self._end.number

    @property
    def size_bytes(self) -> int:
        """How long the journal is, without its index."""
        return self._end.position

    def append(self, records: Sequence[tuple[int, bytes]]) -> list[int]:
        """Append (class, payload) pairs. All are in the file afterwards, or none (OSError).

        Returns the position of each. Raises ValueError for a payload over MAX_PAYLOAD.
        """
        if any(len(payload) > MAX_PAYLOAD for _, payload in records):
            raise ValueError("a record is too long")
        before, tag, heads = self._end, self._kind.tag, short_heads(self._kind.tag)
        number, position, counts = before.number, before.position, list(before.counts)
        block_number, block_position = self._block.number, self._block.position
        pieces: list[bytes] = []
        marks = []
        positions = []
        for kind, payload in records:
            size = len(payload)
            head = heads[size] if size < len(heads) else frame_head(tag, size)
            pieces += (head, payload)
            positions.append(position)
            position += len(head) + size
            number += 1
            counts[kind] += 1
            if _is_block(number - block_number, position - block_position):
                marks.append(Mark(position, tuple(counts)))
                block_number, block_position = number, position
        end = Mark(position, tuple(counts))
        if number > block_number and number > before.number:
            marks.append(end)
        data = b"".join(pieces)
        try:
            _write(self._file, data)
        except OSError:
            os.ftruncate(self._file, before.position)
            raise
        self._end = end
        self._mark_blocks(marks, data, before.position)
        return positions

    def close(self) -> None:
        """Close the files. The last block ends there: its end is known, whatever becomes of it."""
        if self._end.number > self._block.number:
            size = self._end.position - self._block.position
            self._write_marks([self._end], [self._sums.end_block(size)])
        self._close_files()

    def _close_files(self) -> None:
        os.close(self._file)
        if self._index >= 0:
            os.close(self._index)
        self._sums.close()

    def _advance(self, kind: int, position: int, *, count: int = 1) -> Mark:
        counts = list(self._end.counts)
        counts[kind] += count
        self._end = Mark(position, tuple(counts))
        return self._end

    def _mark_blocks(self, marks: Sequence[Mark], data: bytes | None, position: int) -> None:
        """Write those of the marks that end a block; the last mark is the journal's end.

        `data` was just written at `position`; None if it was found there.
        """
        block, ends, sums = self._block, [], []
        begin = 0
        for mark in marks:
            if _is_block(mark.number - block.number, mark.position - block.position):
                end = mark.position - position
                self._sum_up(data, begin, end)
                sums.append(self._sums.end_block(mark.position - block.position))
                ends.append(mark)
                block, begin = mark, end
        if marks and marks[-1] is not block:
            self._sum_up(data, begin, None)
        self._write_marks(ends, sums)

    def _sum_up(self, data: bytes | None, begin: int, end: int | None) -> None:
        if data is None:
            # It is not known to be what was written.
            self._sums.forget()
        else:
            self._sums.take(data[begin:end])

    def _write_marks(self, marks: Sequence[Mark], sums: Sequence[bytes]) -> None:
        data = b"".join(ENTRY.pack(mark.position, *mark.counts) for mark in marks)
        size = os.fstat(self._index).st_size
        # First, so that the index never tells of a block with the sum of another.
        self._sums.write(size // ENTRY.size, sums)
        try:
            _write(self._index, data)
        except OSError:
            # The records are in the file. The index may lag behind it, but not be torn.
            os.ftruncate(self._index, size)
            self._sums.forget()
        else:
            self._block = marks[-1] if marks else self._block

    def _recover(self) -> None:
        """Find the end. What the index knows of records that are lost counts."""
        index = Index(self._index, self._file, self._kind)
        known = index.last_known()
        trusted = index.trusted()
        os.ftruncate(self._index, trusted * ENTRY.size)
        self._block = self._end = index.before(trusted)
        stop = self._read_to_end()
        size = os.fstat(self._file).st_size
        if not self._kind.numbered:
            os.ftruncate(self._file, self._end.position)
        elif known.number > self.number and known.position > self._end.position:
            self._lose(_most(known, size), size)
        elif stop is Stop.BROKEN:
            self._lose(_most(self._end, size), size)
        else:
            os.ftruncate(self._file, self._end.position)

    def _lose(self, number: int, position: int) -> None:
        """Go on behind `position` and record `number`: what lies before and is not read is lost."""
        end = self._advance(0, position, count=number - self.number)
        # Twice, see `Index.last_known`.
        self._write_marks([end, end], [UNKNOWN, UNKNOWN])
        self._sums.begin()

    def _read_to_end(self) -> Stop:
        """Go on to the last good record. Returns what is behind it."""
        while True:
            start = self._end.position
            ends, stop = record_ends(
                data := os.pread(self._file, READ, start), self._kind, self.number + 1
            )
            if ends:
                self._take(data, ends, start)
                continue
            if stop is Stop.END or not self._kind.numbered:
                return stop
            # What a crash left half-written may look like records within, but not to its end.
            found = next_record(
                self._file,
                self._kind,
                self._end.cursor,
                start=start + (stop is Stop.PARTIAL),
                to_end=stop is Stop.PARTIAL,
            )
            if found is None:
                return stop
            self._advance(0, found.position, count=found.number - self.number)

    def _take(self, data: bytes, ends: Sequence[int], start: int) -> None:
        """Count records that are there."""
        marks = []
        before = 0
        for end in ends:
            marks.append(self._advance(self._class_of(data[before:end]), start + end))
            before = end
        self._mark_blocks(marks, None, start)


def _is_block(records: int, size: int) -> bool:
    return records >= BLOCK_RECORDS or size >= BLOCK_BYTES


def _most(mark: Mark, size: int) -> int:
    """The highest number that a record can have had which ends at `size` or before."""
    if mark.position >= size:
        return mark.number
    return mark.number + (size - mark.position) // MIN_RECORD + 1


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
