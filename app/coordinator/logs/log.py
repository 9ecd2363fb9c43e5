"""A job's log: entries with offsets dense from 1 within an epoch, read by place, tail and level.

An entry that is damaged on the disk is told as such in its place, wherever the
log is read. Where not even its frame can be read it is left out: the offsets
of the others show the hole.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from google.protobuf.message import DecodeError

from app.coordinator.storage import journal
from app.coordinator.storage.journal import JournalReader, Wanted
from app.coordinator.storage.journal_counts import Counted, counts_through, holes
from app.coordinator.storage.journal_scan import Look, scan_before
from app.coordinator.storage.journal_writer import JournalWriter
from app.coordinator.storage.records import CLASSES, Cursor, RecordKind, Slice, varint
from generated.mindcoordinator.v1.watch_pb2 import (
    LogEntry,
    LogLevel,
    LogRange,
    WatchJobResponse,
)

#: The journal of the entries within the log's directory.
_ENTRIES: Final = "entries"
#: Bytes of a message that are kept; what is longer is cut, with a mark.
MAX_MESSAGE: Final = 64 * 1024
#: Bytes in one page or batch, unless its first entry alone is larger.
PAGE_BYTES: Final = 256 * 1024
#: The key of an entry's field `level`.
_LEVEL_KEY: Final = 0x10
_EPOCH: Final = re.compile(rb"[a-z0-9]{1,32}")
#: Timestamps are below it: the year 10000, in seconds since 1970.
_END_OF_TIME: Final = 253_402_300_800


def create(directory: Path) -> None:
    """Make an empty log with a new epoch, unless there is one."""
    directory.mkdir(parents=True, exist_ok=True)
    epoch = directory / "epoch"
    if not epoch.exists():
        fresh = directory / "epoch.new"
        fresh.write_text(secrets.token_hex(8), encoding="ascii")
        fresh.replace(epoch)
    LogWriter(directory).close()


def read_epoch(directory: Path) -> str:
    """The log's epoch: 1 to 32 characters of [a-z0-9].

    Of a file that is damaged it is another one, the same each time.
    """
    content = (directory / "epoch").read_bytes()
    if _EPOCH.fullmatch(content):
        return content.decode()
    return hashlib.sha256(content).hexdigest()[:32]


def _decoded(payload: bytes) -> LogEntry | None:
    """An entry as it was written; None if it is damaged."""
    try:
        entry = LogEntry.FromString(payload)
    except DecodeError:
        return None
    return entry if is_sound(entry) else None


def is_sound(entry: LogEntry) -> bool:
    """Whether a writer can have written it."""
    return (
        entry.level in _LEVELS
        and 0 <= entry.timestamp.seconds < _END_OF_TIME
        and 0 <= entry.timestamp.nanos < 1_000_000_000
    )


#: Whatever level it had, every watcher is told of it.
_OF_DAMAGED: Final = LogLevel.LOG_LEVEL_ERROR
_LEVELS: Final = frozenset(LogLevel.values())
#: The records: the field `logs` of WatchJobResponse, each with its offset as its number.
ENTRIES: Final = RecordKind(0x12, lambda payload: _decoded(payload) is not None)


def _class_of(record: bytes) -> int:
    try:
        return class_of_level(WatchJobResponse.FromString(record).logs[0].level)
    except DecodeError:
        return class_of_level(_OF_DAMAGED)


def class_of_head(head: bytes) -> int:
    """The journal's class of an entry, from the first bytes of its record."""
    at = 1
    for _ in ("length", "offset"):
        while head[at] > 0x7F:
            at += 1
        at += 2
    # Behind the offset comes the level, if it has one.
    known = len(head) > at and head[at - 1] == _LEVEL_KEY
    return class_of_level(head[at] if known else 0)


def class_of_level(level: int) -> int:
    """The journal's class of a level."""
    return min(max(level - 1, 0), CLASSES - 1)


#: The field `offset` up to the low seven bits of one, without and with further bytes behind it.
_FIRST_OFFSETS: Final = tuple(bytes((0x08, low)) for low in range(0x80))
_OFFSETS: Final = tuple(bytes((0x08, low | 0x80)) for low in range(0x80))
_CLASS_OF_LEVEL: Final = tuple(map(class_of_level, range(0x80)))


class LogWriter:
    """The one writer of a log: it gives the offsets."""

    def __init__(self, directory: Path) -> None:
        self._journal = JournalWriter(
            directory / _ENTRIES, kind=ENTRIES, class_of=_class_of, sums=True
        )

    @property
    def last_offset(self) -> int:
        """The offset of the last entry."""
        return self._journal.number

    @property
    def size_bytes(self) -> int:
        """How long the log is."""
        return self._journal.size_bytes

    def append(self, entries: Sequence[LogEntry | bytes]) -> None:
        """Number the entries and append them: all of them, or none (OSError).

        One that is bytes is as `PlainLines` makes it.
        """
        records = []
        high, key = -1, b""
        for offset, entry in enumerate(entries, self._journal.number + 1):
            if isinstance(entry, bytes):
                if offset >> 7 != high:
                    high = offset >> 7
                    key = varint(high) if high else b""
                record = (_OFFSETS if high else _FIRST_OFFSETS)[offset & 0x7F] + key + entry
                records.append((_CLASS_OF_LEVEL[entry[1]], record))
            else:
                entry.offset = offset
                records.append((class_of_level(entry.level), entry.SerializeToString()))
        self._journal.append(records)

    def close(self) -> None:
        """Close the files."""
        self._journal.close()


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, and the place up to which the log was looked at for them."""

    entries: list[LogEntry]
    cursor: Cursor
    #: What is lost of the part that was looked at by level, ascending.
    missing: list[LogRange] = field(default_factory=list)


def entries_path(directory: Path) -> str:
    """Where the entries of a log are, for `read_behind`."""
    return str(directory / _ENTRIES)


def read_behind(path: str, cursor: Cursor, *, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
    """All entries behind `cursor`, up to the limits, by one descriptor that is not kept.

    They are dense; what is lost lies before or behind them. Raises OSError.
    """
    piece = journal.read_behind(path, cursor, kind=ENTRIES, limit=limit, max_bytes=max_bytes)
    return Page(_entries(piece), piece.cursor)


class LogReader:
    """Reads a log while it is being written. A context manager."""

    def __init__(self, directory: Path) -> None:
        self.epoch = read_epoch(directory)
        self._journal = JournalReader(directory / _ENTRIES, kind=ENTRIES)

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
        self._journal.close()

    def last_offset(self) -> int:
        """The offset of the newest entry; 0 when there is none."""
        return self._journal.last()

    def locate(self, offset: int) -> Cursor:
        """The place behind `offset`."""
        return self._journal.locate(offset)

    def read_records(self, cursor: Cursor, *, limit: int, max_bytes: int = PAGE_BYTES) -> Slice:
        """All entries behind `cursor`, up to the limits, as they are on the disk."""
        return self._journal.read(cursor, limit=limit, max_bytes=max_bytes)

    def read(self, cursor: Cursor, *, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
        """All entries behind `cursor`, up to the limits, as `read_behind` returns them."""
        piece = self._journal.read(cursor, limit=limit, max_bytes=max_bytes)
        return Page(_entries(piece), piece.cursor)

    def blocks_behind(
        self, cursor: Cursor, *, min_level: int, wanted: Wanted | None = None
    ) -> Iterator[Slice]:
        """What lies behind `cursor`, but for blocks that have no entry of a level; what is lost,
        too. Blocks that are not `wanted` are passed over, if nothing is damaged in them."""
        return self._journal.blocks_with(cursor, _passing(min_level), wanted=wanted)

    def blocks_before(
        self, offset: int, *, min_level: int, wanted: Wanted | None = None
    ) -> Iterator[Slice]:
        """What lies before an entry, from the end, as `blocks_behind` returns it; the first
        slices may go beyond it."""
        return self._journal.blocks_before(offset, _passing(min_level), wanted=wanted)

    def scan_before(
        self, offset: int, *, min_level: int, wanted: Callable[[bytes], bool]
    ) -> Iterator[Look]:
        """What lies before an entry, from the end, as `journal_scan` returns it."""
        return scan_before(self._journal, offset, classes=_passing(min_level), wanted=wanted)

    def count_through(self, offsets: Sequence[int]) -> Counted:
        """How many entries of each class of levels there are up to each of `offsets`, which
        ascend. Raises IndexLost."""
        return counts_through(self._journal, offsets, class_of=class_of_head)

    def holes(self) -> list[tuple[int, int]]:
        """What writers of the log found to be lost, by offset: first and last, ascending."""
        return holes(self._journal)

    def slices(self, cursor: Cursor, *, limit: int) -> Iterator[Slice]:
        """All that is there behind `cursor`, at most `limit` entries at once."""
        while (piece := self._journal.read(cursor, limit=limit)).count:
            cursor = piece.cursor
            yield piece

    def tail(self, count: int, *, min_level: int, through: int) -> Cursor:
        """The place from which `count` entries that pass are left up to offset `through`."""
        passing = _passing(min_level)
        if len(passing) == CLASSES:
            return self._journal.locate(max(through - count, 0))
        left_out = self._count(through, min_level) - count
        if left_out < 0:
            return Cursor()
        if not count:
            return self._journal.locate(through)
        mark = self._journal.block_before(left_out, passing)
        seen = mark.count(passing)
        for piece in self._journal.blocks_with(mark.cursor, passing):
            for entry in _entries(piece):
                if entry.level >= min_level:
                    if seen == left_out:
                        return self._journal.locate(entry.offset - 1)
                    seen += 1
        # Some of those that the index counts are lost.
        return mark.cursor

    def _count(self, through: int, min_level: int) -> int:
        """How many entries of a level there are up to offset `through`."""
        passing = _passing(min_level)
        mark = self._journal.block_of(through)
        count = mark.count(passing)
        for piece in self._journal.blocks_with(mark.cursor, passing):
            for entry in _entries(piece):
                if entry.offset > through:
                    return count
                count += entry.level >= min_level
        return count


def _entries(piece: Slice) -> list[LogEntry]:
    """The entries of a slice. One that is damaged is told as such, in its place."""
    return [
        damaged_entry(offset) if entry is None else entry
        for offset, entry in enumerate(decoded(piece), piece.first)
    ]


def sent(piece: Slice) -> bytes:
    """The entries of a slice as a WatchJobResponse: as they are on the disk, unless one is damaged,
    which is told as such."""
    if all(decoded(piece)):
        return piece.data
    return WatchJobResponse(logs=_entries(piece)).SerializeToString()


def decoded(piece: Slice) -> list[LogEntry | None]:
    """The entries of a slice; None in the place of one that is damaged."""
    try:
        entries: Iterable[LogEntry | None] = WatchJobResponse.FromString(piece.data).logs
    except DecodeError:
        entries = map(_decoded, piece.payloads())
    return [
        entry if entry is not None and entry.offset == offset and is_sound(entry) else None
        for offset, entry in enumerate(entries, piece.first)
    ]


def damaged_entry(offset: int) -> LogEntry:
    """What stands in the place of a damaged one."""
    return LogEntry(
        offset=offset,
        level=_OF_DAMAGED,
        source="coordinator",
        message="This line is damaged on the coordinator's disk.",
    )


def _passing(min_level: int) -> range:
    """The journal's classes of a level and those above it."""
    return range(class_of_level(min_level), CLASSES)
