"""Searches a log from its newest entry to its oldest, within bounds, and says how far it is.

A search names no lines that are lost: pages and marks of the log do.
"""

import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.coordinator.logs.log import LogReader, decoded
from app.coordinator.logs.pages import passes
from app.coordinator.storage.records import Slice
from app.log_filter import LogFilter
from generated.mindcoordinator.v1.logs_pb2 import (
    LogMatch,
    LogSpan,
    SearchEnd,
    SearchJobLogsResponse,
)
from generated.mindcoordinator.v1.watch_pb2 import LogEntry

#: Seconds between two messages, at most, while records are judged.
_INTERVAL: Final = 0.1
#: Bytes of the matches in one message, unless one alone is larger.
_MESSAGE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBounds:
    """Of one search."""

    matches: int
    #: One entry at least is looked at, however little is left of these.
    scanned_bytes: int
    seconds: float


def search(
    log: LogReader, *, condition: LogFilter, before: int, bounds: SearchBounds
) -> Iterator[SearchJobLogsResponse]:
    """What passes before offset `before`, and at the end why it ended. Blocks. Raises OSError."""
    yield from _Search(log, condition, before, bounds).run()


class _Search:
    def __init__(
        self, log: LogReader, condition: LogFilter, before: int, bounds: SearchBounds
    ) -> None:
        self._log = log
        self._condition = condition
        self._before = before
        self._bounds = bounds
        #: Everything from here on has been looked at.
        self._scanned_to = before
        self._scanned = self._count = self._size = 0
        self._matches: list[LogMatch] = []
        now = time.monotonic()
        self._until = now + bounds.seconds
        self._said_at = now

    def run(self) -> Iterator[SearchJobLogsResponse]:
        if not self._bounds.matches:
            yield self._message(SearchEnd.SEARCH_END_LIMIT)
            return
        for look in self._log.scan_before(
            self._before, min_level=self._condition.min_level, wanted=self._may_pass
        ):
            self._scanned += look.size
            if look.piece is not None:
                for offset in self._candidates(look.piece):
                    self._judge(look.piece, offset)
                    self._scanned_to = offset
                    if self._full:
                        yield self._message(SearchEnd.SEARCH_END_LIMIT)
                        return
                    if self._late and offset > 1:
                        yield self._message(SearchEnd.SEARCH_END_BUDGET)
                        return
                    if self._has_to_say:
                        yield self._message()
            self._scanned_to = min(self._scanned_to, look.first)
            if self._scanned_to > 1 and self._over:
                yield self._message(SearchEnd.SEARCH_END_BUDGET)
                return
            if self._has_to_say:
                yield self._message()
        self._scanned_to = 1
        yield self._message(SearchEnd.SEARCH_END_EXHAUSTED)

    @property
    def _full(self) -> bool:
        return self._count == self._bounds.matches

    @property
    def _late(self) -> bool:
        return time.monotonic() >= self._until

    @property
    def _over(self) -> bool:
        """Whether a bound is reached, and something was looked at."""
        return self._scanned_to < self._before and (
            self._late or self._scanned >= self._bounds.scanned_bytes
        )

    @property
    def _has_to_say(self) -> bool:
        return self._size >= _MESSAGE_BYTES or time.monotonic() - self._said_at >= _INTERVAL

    def _may_pass(self, data: bytes) -> bool:
        return self._condition.candidate(data) >= 0

    def _candidates(self, piece: Slice) -> Iterator[int]:
        """The offsets of a slice at which something may pass, from the end."""
        places: list[int] = []
        at = 0
        while at < len(piece.data) and (found := self._condition.candidate(piece.data, at)) >= 0:
            place = bisect_right(piece.ends, found)
            if place == len(piece.ends):
                break
            places.append(place)
            at = piece.ends[place]
        for place in reversed(places):
            if (offset := piece.first + place) < self._before:
                yield offset

    def _judge(self, piece: Slice, offset: int) -> None:
        place = offset - piece.first
        entry = decoded(piece.part(place, place + 1))[0]
        if entry is None or not passes(self._condition, entry):
            return
        match = _match(self._condition, entry)
        self._matches.append(match)
        self._count += 1
        self._size += match.ByteSize()

    def _message(
        self, end: SearchEnd.ValueType = SearchEnd.SEARCH_END_UNSPECIFIED
    ) -> SearchJobLogsResponse:
        message = SearchJobLogsResponse(
            epoch=self._log.epoch,
            matches=self._matches,
            scanned_to=self._scanned_to,
            match_count=self._count,
            scanned_bytes=self._scanned,
            end=end,
        )
        self._matches = []
        self._size = 0
        self._said_at = time.monotonic()
        return message


def _match(condition: LogFilter, entry: LogEntry) -> LogMatch:
    spans = condition.spans(entry.message)
    return LogMatch(entry=entry, spans=[LogSpan(start=start, end=end) for start, end in spans])
