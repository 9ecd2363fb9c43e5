"""The model of a job's log at the coordinator: every entry that ever was, and what is left."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from app.log_filter import LogFilter
from generated.mindcoordinator.v1.watch_pb2 import (
    ListJobLogsRequest,
    ListJobLogsResponse,
    LogEntry,
    LogLevel,
    LogRange,
)


class Entry(NamedTuple):
    """An entry. No two of a test have the same `token`, with which its message begins."""

    token: str
    level: int
    #: What the message has besides.
    rest: str

    @property
    def message(self) -> str:
        return f"{self.token} {self.rest}"

    def passes(self, log_filter: LogFilter) -> bool:
        return log_filter.passes(
            level=self.level, message=self.message, source="stdout", rank=0, timestamp_ns=0
        )


@dataclass
class EpochLog:
    """A log of one epoch. Its first entry ever has the offset `base + 1`."""

    epoch: str
    base: int
    #: The entries of each version; all but the last were cut off somewhere, and grew anew.
    versions: list[list[Entry]] = field(default_factory=lambda: [[]])
    #: The oldest entry that is kept.
    first: int = 0
    #: Entries that are lost within the log.
    lost: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.first = self.first or self.base + 1

    @property
    def entries(self) -> list[Entry]:
        return self.versions[-1]

    @property
    def last(self) -> int:
        return self.base + len(self.entries)

    def entry(self, offset: int) -> Entry:
        return self.entries[offset - self.base - 1]

    def ever(self, offset: int, since: int = 0) -> Iterator[Entry]:
        """All entries that had this offset, from a version on."""
        for entries in self.versions[since:]:
            if self.base < offset <= self.base + len(entries):
                yield entries[offset - self.base - 1]

    def kept(self, offset: int) -> bool:
        return offset >= self.first and offset not in self.lost

    def cut_off(self, last: int) -> None:
        """Lose the newest entries without a trace: what comes next has their offsets."""
        self.versions.append(self.entries[: last - self.base])
        self.lost = {offset for offset in self.lost if offset <= last}
        self.first = min(self.first, last + 1)

    # Answers

    def message(self, offset: int) -> LogEntry:
        entry = self.entry(offset)
        message = LogEntry(
            offset=offset,
            level=LogLevel.ValueType(entry.level),
            message=entry.message,
            source="stdout",
        )
        message.timestamp.FromSeconds(1_700_000_000 + offset % 7)
        return message

    def page(
        self, request: ListJobLogsRequest, log_filter: LogFilter, *, most: int, ended: bool
    ) -> ListJobLogsResponse:
        """Answer ListJobLogs with at most so many entries."""
        through = min(request.through_offset or self.last, self.last)
        page = ListJobLogsResponse(
            epoch=self.epoch,
            first_offset=self.first if self.last else 0,
            last_offset=self.last,
            complete=ended,
        )
        if request.before_offset:
            place = min(request.before_offset, self.last + 1)
            found: list[LogEntry] = []
            while place > self.first and len(found) < most:
                place -= 1
                if self.kept(place) and self.entry(place).passes(log_filter):
                    found.append(self.message(place))
            page.entries.extend(reversed(found))
            page.next_before_offset = place if place > self.first else 1
            return page
        place = request.after.offset if request.HasField("after") else self._before_tail(request)
        place = max(place, min(self.first - 1, through))
        while place < through and len(page.entries) < most:
            place += 1
            if not self.kept(place):
                self._tell_missing(page, place, log_filter)
            elif self.entry(place).passes(log_filter):
                page.entries.append(self.message(place))
        page.next_after_offset = place
        return page

    def _before_tail(self, request: ListJobLogsRequest) -> int:
        through = min(request.through_offset or self.last, self.last)
        passing = [
            offset
            for offset in range(self.first, through + 1)
            if self.kept(offset) and self.entry(offset).level >= request.min_level
        ][-request.tail :]
        return passing[0] - 1 if request.tail and passing else through

    @staticmethod
    def _tell_missing(page: ListJobLogsResponse, offset: int, log_filter: LogFilter) -> None:
        """Nobody knows whether what is lost would pass; without a filter, the offsets tell it."""
        if not log_filter.passes_all or offset % 2:
            if page.missing and page.missing[-1].last == offset - 1:
                page.missing[-1].last = offset
            else:
                page.missing.append(LogRange(first=offset, last=offset))
