"""Checksums of a journal's blocks: that what was written is there is seen without taking it apart.

Entry k of `<name>.sums` has the size and the CRC-32 of the block that ends at
entry k of the index. Zeros say that nothing is known: of a block that was
written without sums, or whose beginning was found again after a crash. The file
is a help alone. Where it is missing, or does not agree, records are read.
"""

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from zlib import crc32

_ENTRY: Final = struct.Struct("<II")
#: The entry of a block of which nothing is known.
UNKNOWN: Final = _ENTRY.pack(0, 0)


def sums_path(path: str | Path) -> str:
    """Where the sums of a journal are."""
    return f"{path}.sums"


class SumWriter:
    """Sums up a block while it is written, for a file beside the journal; or for none."""

    def __init__(self, path: str | None) -> None:
        """Open the file. Where that fails, as on a full disk, nothing is summed up."""
        self._file: int | None = None
        if path is not None:
            with suppress(OSError):
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        #: None if some of the block was not seen.
        self._sum: int | None = 0

    def begin(self) -> None:
        """Begin another block."""
        self._sum = 0

    def take(self, data: bytes) -> None:
        """Add what was written next."""
        if self._sum is not None and self._file is not None:
            self._sum = crc32(data, self._sum)

    def forget(self) -> None:
        """Note that something lies in the block which was not seen."""
        self._sum = None

    def end_block(self, size: int) -> bytes:
        """Return the entry of a block of this size; the next one begins."""
        entry = UNKNOWN if self._sum is None else _ENTRY.pack(size, self._sum)
        self._sum = 0
        return entry

    def write(self, place: int, entries: Sequence[bytes]) -> None:
        """Write the entries from a place of the index on, before the index has them."""
        if self._file is None:
            return
        # What is not there is not known: the blocks are read record by record.
        with suppress(OSError):
            os.pwrite(self._file, b"".join(entries), place * _ENTRY.size)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)


def is_whole(sums: int, place: int, data: bytes) -> bool:
    """Whether `data` is what was written as the block at a place. `sums` is an open file."""
    entry = os.pread(sums, _ENTRY.size, place * _ENTRY.size)
    return len(entry) == _ENTRY.size and entry == _ENTRY.pack(len(data), crc32(data)) != UNKNOWN
