"""A job's log: entries with offsets dense from 1 within an epoch, read by place, tail and level."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from google.protobuf.message import DecodeError

from app.coordinator.storage import journal
from app.coordinator.storage.journal import CLASSES, Cursor, JournalReader, Slice
from app.coordinator.storage.journal_writer import JournalWriter
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel, WatchJobResponse

#: The field `logs` of WatchJobResponse, length-delimited.
TAG: Final = 0x12
#: The journal of the entries within the log's directory.
_ENTRIES: Final = "entries"
#: Bytes of a message that are kept; what is longer is cut, with a mark.
MAX_MESSAGE: Final = 64 * 1024
#: Bytes in one page or batch, unless its first entry alone is larger.
PAGE_BYTES: Final = 256 * 1024


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
    """The log's epoch: 1 to 32 characters of [a-z0-9]."""
    return (directory / "epoch").read_text(encoding="ascii")


def _class_of(record: bytes) -> int:
    try:
        return class_of_level(WatchJobResponse.FromString(record).logs[0].level)
    except DecodeError:
        # As `_entry` tells it.
        return class_of_level(LogLevel.LOG_LEVEL_WARNING)


def class_of_level(level: int) -> int:
    """The journal's class of a level."""
    return min(max(level - 1, 0), CLASSES - 1)


class LogWriter:
    """The one writer of a log: it gives the offsets."""

    def __init__(self, directory: Path) -> None:
        self._journal = JournalWriter(directory / _ENTRIES, tag=TAG, class_of=_class_of)

    @property
    def last_offset(self) -> int:
        """The offset of the last entry."""
        return self._journal.number

    @property
    def size_bytes(self) -> int:
        """How long the log is."""
        return self._journal.size_bytes

    def append(self, entries: list[LogEntry]) -> None:
        """Give the entries their offsets and append them: all of them, or none (OSError)."""
        for offset, entry in enumerate(entries, self._journal.number + 1):
            entry.offset = offset
        self._journal.append(
            [(class_of_level(entry.level), entry.SerializeToString()) for entry in entries]
        )

    def close(self) -> None:
        """Close the files."""
        self._journal.close()


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, and the place up to which the log was looked at for them."""

    entries: list[LogEntry]
    cursor: Cursor


def entries_path(directory: Path) -> str:
    """Where the entries of a log are, for `read_behind`."""
    return str(directory / _ENTRIES)


def read_behind(path: str, cursor: Cursor, *, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
    """All entries behind `cursor`, up to the limits, by one descriptor that is not kept.

    Raises OSError.
    """
    piece = journal.read_behind(path, cursor, tag=TAG, limit=limit, max_bytes=max_bytes)
    return Page(_entries(piece), piece.cursor)


class LogReader:
    """Reads a log while it is being written. A context manager."""

    def __init__(self, directory: Path) -> None:
        self.epoch = read_epoch(directory)
        self._journal = JournalReader(directory / _ENTRIES, tag=TAG)

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

    def read(self, cursor: Cursor, *, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
        """All entries behind `cursor`, up to the limits."""
        piece = self._journal.read(cursor, limit=limit, max_bytes=max_bytes)
        return Page(_entries(piece), piece.cursor)

    def select(
        self, cursor: Cursor, *, limit: int, min_level: int, through: int, max_bytes: int
    ) -> Page:
        """Entries of `min_level` and above behind `cursor`, none behind offset `through`."""
        chosen: list[LogEntry] = []
        size = 0
        for piece in self._pieces(cursor, min_level=min_level, limit=limit):
            for entry in _entries(piece):
                if entry.offset > through:
                    return Page(chosen, self._journal.locate(through))
                if entry.level >= min_level:
                    size += entry.ByteSize()
                    if len(chosen) == limit or (chosen and size > max_bytes):
                        return Page(chosen, self._journal.locate(entry.offset - 1))
                    chosen.append(entry)
        return Page(chosen, self._journal.locate(through))

    def tail(self, count: int, *, min_level: int, through: int) -> Cursor:
        """The place from which `count` entries that pass are left up to offset `through`."""
        passing = _passing(min_level)
        if len(passing) == CLASSES:
            return self._journal.locate(max(through - count, 0))
        left_out = self._count(through, min_level) - count
        if left_out < 0:
            return Cursor()
        mark = self._journal.block_before(left_out, passing)
        seen = mark.count(passing)
        for piece in self._journal.blocks_with(mark.cursor, passing):
            for entry in _entries(piece):
                if entry.level >= min_level:
                    if seen == left_out:
                        return self._journal.locate(entry.offset - 1)
                    seen += 1
        return self._journal.locate(through)

    def _pieces(self, cursor: Cursor, *, min_level: int, limit: int) -> Iterator[Slice]:
        """What has to be looked at for `limit` entries of a level behind `cursor`, and more."""
        passing = _passing(min_level)
        if len(passing) < CLASSES:
            yield from self._journal.blocks_with(cursor, passing)
            return
        while (piece := self._journal.read(cursor, limit=limit + 1)).count:
            cursor = piece.cursor
            yield piece

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
    try:
        return list(WatchJobResponse.FromString(piece.data).logs)
    except DecodeError:
        first = piece.cursor.number - piece.count + 1
        return [_entry(payload, offset) for offset, payload in enumerate(piece.payloads(), first)]


def _entry(payload: bytes, offset: int) -> LogEntry:
    try:
        return LogEntry.FromString(payload)
    except DecodeError:
        return LogEntry(
            offset=offset,
            level=LogLevel.LOG_LEVEL_WARNING,
            source="coordinator",
            message="This line is damaged on the coordinator's disk.",
        )


def _passing(min_level: int) -> range:
    """The journal's classes of a level and those above it."""
    return range(class_of_level(min_level), CLASSES)
