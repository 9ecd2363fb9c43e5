"""The one writer of a journal, see `journal`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from app.coordinator.storage.journal import (
    ENTRY,
    MAX_PAYLOAD,
    READ,
    START,
    Mark,
    frame,
    index_path,
    open_index,
    record_ends,
)

#: A block of the index ends when it has so many records or bytes.
BLOCK_RECORDS: Final = 128
BLOCK_BYTES: Final = 256 * 1024


class JournalWriter:
    """The one writer of a journal. Opening it cuts off what a crash left half-written.

    `class_of` tells the class of a record from its bytes, frame included.
    """

    def __init__(self, path: Path, *, tag: int, class_of: Callable[[bytes], int]) -> None:
        self._tag = tag
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._index = -1
        self._block = START
        self._end = START
        try:
            self._index = os.open(
                index_path(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640
            )
            self._recover(class_of)
        except BaseException:
            self.close()
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
        before = self._end
        data = bytearray()
        marks = []
        positions = []
        for kind, payload in records:
            positions.append(before.position + len(data))
            data += frame(self._tag, payload)
            marks.append(self._advance(kind, before.position + len(data)))
        try:
            _write(self._file, bytes(data))
        except OSError:
            self._end = before
            os.ftruncate(self._file, before.position)
            raise
        self._write_index(marks)
        return positions

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        if self._index >= 0:
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
                data += ENTRY.pack(mark.position, *mark.counts)
                self._block = mark
        try:
            _write(self._index, bytes(data))
        except OSError:
            # The records are in the file. The index may lag behind it, but not be torn.
            index = open_index(self._index, within=self._end.position)
            os.ftruncate(self._index, len(index) * ENTRY.size)
            self._block = index.before(len(index))

    def _recover(self, class_of: Callable[[bytes], int]) -> None:
        size = os.fstat(self._file).st_size
        index = open_index(self._index, within=size)
        os.ftruncate(self._index, len(index) * ENTRY.size)
        self._block = index.before(len(index))
        self._end = self._block
        while True:
            start = self._end.position
            data = os.pread(self._file, READ, start)
            ends = record_ends(data, self._tag)
            if not ends:
                break
            marks = []
            before = 0
            for end in ends:
                marks.append(self._advance(class_of(data[before:end]), start + end))
                before = end
            self._write_index(marks)
        os.ftruncate(self._file, self._end.position)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
