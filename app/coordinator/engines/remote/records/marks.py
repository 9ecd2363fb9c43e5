"""How far what a node has recorded was taken over into a job's log and metrics.

Before entries are appended to a job's log, a mark is appended to the run's file
of marks: from which source, which numbers they have there, and behind which
offset of the log they are put. An append may be cut short by a crash; the log's
own end tells how much of the newest mark came to pass. So no line is taken over
twice, and none is left out, whenever the writer dies.
"""

import os
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Kind, source, count, offset before, first number there.
_MARK: Final = struct.Struct("<HHIQQ")
_READ: Final = 4096 * _MARK.size

#: The kinds of what is taken over.
LINES: Final = 0
SNAPSHOTS: Final = 1
#: Added to a kind: what is left out, and counts as taken over.
_LEFT_OUT: Final = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """Entries of one source that lie one behind the other in the job's own."""

    kind: int
    source: int
    count: int
    #: The offset behind which they are put.
    behind: int
    #: The number of the first at its source.
    first: int


class MarkFile:
    """The marks of one run. One writer. Blocks shortly."""

    def __init__(self, path: Path, *, ends: dict[int, int]) -> None:
        """Take up what is there; `ends` has the last offset of the job's own by kind.

        Raises OSError.
        """
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            #: The number of the last that was taken over, by kind and source.
            self.taken: dict[tuple[int, int], int] = {}
            #: How many were left out, by kind.
            self.left_out: Counter[int] = Counter()
            self.size = self._take_up(ends)
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def taking(self, mark: Mark, append: Callable[[], None]) -> None:
        """Mark what `append` appends, all of it or nothing. Raises what it does, and OSError."""
        self._write(mark, self.size)
        try:
            append()
        except BaseException:
            # Or what is appended next would be taken for it.
            os.ftruncate(self._file, self.size)
            raise
        self.size += _MARK.size
        self.taken[mark.kind, mark.source] = mark.first + mark.count - 1

    def leaving_out(self, kind: int, source: int, count: int, *, first: int) -> None:
        """Mark what is not appended. Raises OSError."""
        self._write(Mark(kind + _LEFT_OUT, source, count, 0, first), self.size)
        self.size += _MARK.size
        self._note_left_out(kind, source, count, first)

    def _note_left_out(self, kind: int, source: int, count: int, first: int) -> None:
        self.taken[kind, source] = first + count - 1
        self.left_out[kind] += count

    def _write(self, mark: Mark, at: int) -> None:
        data = _MARK.pack(mark.kind, mark.source, mark.count, mark.behind, mark.first)
        try:
            written = os.pwrite(self._file, data, at)
        except OSError:
            os.ftruncate(self._file, at)
            raise
        if written < len(data):
            os.ftruncate(self._file, at)
            raise OSError(28, os.strerror(28))

    def _take_up(self, ends: dict[int, int]) -> int:
        """Read all marks, and settle those that came to pass in part, or whose entries a power cut
        has taken back; returns where the next one goes."""
        position = 0
        while data := os.pread(self._file, _READ, position):
            whole = len(data) - len(data) % _MARK.size
            for kind, source, count, behind, first in _MARK.iter_unpack(data[:whole]):
                if kind >= _LEFT_OUT:
                    self._note_left_out(kind - _LEFT_OUT, source, count, first)
                    position += _MARK.size
                    continue
                done = min(max(ends[kind] - behind, 0), count)
                if done:
                    self.taken[kind, source] = first + done - 1
                if done < count:
                    # It counts for so much from now on, whatever is appended behind it.
                    self._write(Mark(kind, source, done, behind, first), position)
                position += _MARK.size
            if not whole:
                break
        os.ftruncate(self._file, position)
        return position
