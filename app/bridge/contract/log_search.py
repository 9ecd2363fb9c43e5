"""A search of a log, message by message, against what was asked."""

from typing import Final

from app.bridge.contract.breaches import Breach
from app.bridge.contract.fields import check_fields
from app.bridge.contract.logs import check_epoch
from app.errors import BrokenContract
from generated.mindcoordinator.v1.logs_pb2 import (
    SEARCH_END_UNSPECIFIED,
    LogMatch,
    SearchJobLogsRequest,
    SearchJobLogsResponse,
)

#: Matches where no number is asked for.
_DEFAULT_LIMIT: Final = 100
_MOST_SPANS: Final = 100


class SearchCheck:
    """Checks the messages of one SearchJobLogs call, in their order."""

    def __init__(self, request: SearchJobLogsRequest) -> None:
        self._most = request.limit or _DEFAULT_LIMIT
        self._level = request.filter.min_level
        self._epoch: str | None = None
        #: Everything from here on has been told.
        self._reached: int | None = request.before_offset or None
        self._scanned_to: int | None = self._reached
        self._count = 0
        self._scanned = 0
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the last message was there."""
        return self._ended

    def check(self, message: SearchJobLogsResponse) -> None:
        """Check the next message. Raises `BrokenContract`; the call is of no use then."""
        check_fields(message)
        if self._ended:
            raise BrokenContract(Breach.END, "end: must be in the last message only")
        check_epoch("epoch", message.epoch)
        if self._epoch is not None and message.epoch != self._epoch:
            raise BrokenContract(Breach.EPOCH, "epoch: must be the same in all messages")
        self._epoch = message.epoch
        for match in message.matches:
            self._match(match)
        self._count += len(message.matches)
        if message.match_count != self._count or self._count > self._most:
            raise BrokenContract(
                Breach.PAGE, "match_count: must be that of the matches, to `limit`"
            )
        if message.scanned_bytes < self._scanned:
            raise BrokenContract(Breach.ORDER, "scanned_bytes: must not fall")
        self._scanned = message.scanned_bytes
        self._places(message)
        self._ended = message.end != SEARCH_END_UNSPECIFIED

    def _match(self, match: LogMatch) -> None:
        offset = match.entry.offset
        if offset < 1 or (self._reached is not None and offset >= self._reached):
            raise BrokenContract(Breach.ORDER, "matches.entry.offset: must fall, before the start")
        self._reached = offset
        if match.entry.level < self._level:
            raise BrokenContract(Breach.LEVEL, "matches.entry.level: must not be below the filter")
        if len(match.spans) > _MOST_SPANS:
            raise BrokenContract(Breach.PAGE, "matches.spans: are more than 100")
        behind, length = 0, len(match.entry.message)
        for span in match.spans:
            if not behind <= span.start < span.end <= length:
                raise BrokenContract(Breach.ORDER, "matches.spans: must rise, within the message")
            behind = span.end

    def _places(self, message: SearchJobLogsResponse) -> None:
        reached = message.scanned_to
        if self._scanned_to is not None and reached > self._scanned_to:
            raise BrokenContract(Breach.ORDER, "scanned_to: must not rise")
        if message.matches and reached > message.matches[-1].entry.offset:
            raise BrokenContract(Breach.ORDER, "scanned_to: must not be behind a match")
        self._scanned_to = reached
        self._reached = reached if self._reached is None else min(self._reached, max(reached, 1))
