"""Streams and pages of a job's log, message by message, against what was asked."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Protocol

from app.bridge.contract.breaches import Breach
from app.bridge.contract.fields import check_fields
from app.errors import BrokenContract
from generated.mindcoordinator.v1.jobs_pb2 import (
    JOB_STATUS_CANCELLED,
    JOB_STATUS_COMPLETED,
    JOB_STATUS_FAILED,
    JOB_STATUS_PREEMPTED,
    JOB_STATUS_UNSPECIFIED,
)
from generated.mindcoordinator.v1.watch_pb2 import (
    ListJobLogsRequest,
    ListJobLogsResponse,
    WatchEnd,
    WatchJobRequest,
    WatchJobResponse,
    WatchStart,
)

#: As `LogPosition` has it, and as an SSE id takes it.
_EPOCH: Final = re.compile(r"[a-z0-9]{1,32}")
_ENDS: Final = frozenset(
    {
        JOB_STATUS_COMPLETED,
        JOB_STATUS_FAILED,
        JOB_STATUS_CANCELLED,
        JOB_STATUS_PREEMPTED,
    }
)


class Placed(Protocol):
    """An entry, as far as its place goes."""

    @property
    def offset(self) -> int:
        """Its offset."""

    @property
    def level(self) -> int:
        """Its level."""


class StreamCheck:
    """Checks the messages of one WatchJob call, in their order.

    Holes between offsets pass: they are the coordinator's damaged blocks, and
    the hub fetches or announces what is missing.
    """

    def __init__(self, request: WatchJobRequest) -> None:
        self._request = request
        #: The offset and the sequence of the newest entry and snapshot; None before the start.
        self._last: int | None = None
        self._sequence = 0

    def check(self, message: WatchJobResponse, entries: Sequence[Placed]) -> None:
        """Check the next message. Raises `BrokenContract`; the call is of no use then.

        `entries` are its entries, whose fields were checked when they were read.
        """
        _check_others(message)
        if message.HasField("start"):
            if self._last is not None:
                raise BrokenContract(Breach.START, "start: must be in the first message only")
            self._start(message.start)
        last = self.check_order(entries)
        for snapshot in message.metrics:
            if snapshot.sequence <= self._sequence:
                raise BrokenContract(Breach.ORDER, "metrics.sequence: must rise")
            self._sequence = snapshot.sequence
        for change in message.status_changes:
            if change.status == JOB_STATUS_UNSPECIFIED:
                raise BrokenContract(Breach.VALUE, "status_changes.status: must be given")
        if message.HasField("end"):
            self._end(message.end, last)

    def check_order(self, entries: Sequence[Placed]) -> int:
        """Check the next message, which has nothing but these entries; as `check`.

        Returns the offset of the newest entry of the stream.
        """
        last = self._last
        if last is None:
            raise BrokenContract(Breach.START, "start: must be in the first message")
        for entry in entries:
            if entry.offset <= last:
                raise BrokenContract(Breach.ORDER, "logs.offset: must rise")
            last = entry.offset
        self._last = last
        return last

    def _start(self, start: WatchStart) -> None:
        check_epoch("start.epoch", start.epoch)
        check_extent(start.first_offset, start.last_offset)
        if start.after_offset > start.last_offset:
            raise BrokenContract(Breach.START, "start.after_offset: must be a place in the log")
        after = self._request.after
        if (
            self._request.HasField("after")
            and after.epoch == start.epoch
            and start.after_offset < after.offset <= start.last_offset
        ):
            raise BrokenContract(Breach.START, "start.after_offset: must not be before `after`")
        self._last = start.after_offset

    @staticmethod
    def _end(end: WatchEnd, last: int) -> None:
        if end.status not in _ENDS:
            raise BrokenContract(Breach.END, "end.status: must be one that ends a job")
        if end.last_offset < last:
            raise BrokenContract(Breach.END, "end.last_offset: must not be before the last entry")


def _check_others(message: WatchJobResponse) -> None:
    """Check the fields of a message but those of its entries."""
    for field, value in message.ListFields():
        if field.name != "logs":
            for each in value if field.is_repeated else (value,):
                check_fields(each)


def check_number(request: ListJobLogsRequest, entries: int) -> None:
    """Check how many entries a page has at least. Raises `BrokenContract`."""
    if request.page_size and entries > request.page_size:
        raise BrokenContract(Breach.PAGE, "the page has more entries than page_size")


def check_places(
    request: ListJobLogsRequest, page: ListJobLogsResponse, entries: Sequence[Placed]
) -> None:
    """Check a page of a log, whose single fields were checked. Raises `BrokenContract`.

    `entries` are those of the page, which may have been taken out of it.
    """
    check_epoch("epoch", page.epoch)
    check_extent(page.first_offset, page.last_offset)
    check_number(request, len(entries))
    if request.min_level and any(entry.level < request.min_level for entry in entries):
        raise BrokenContract(Breach.LEVEL, "entries.level: must not be below min_level")
    backward = request.before_offset > 0 and not request.HasField("after") and not request.tail
    # A coordinator that does not know `before_offset` reads the tail, of no entries.
    if backward and page.next_before_offset:
        _check_backward(request, page, entries)
    else:
        _check_forward(request, page, entries)


def _check_forward(
    request: ListJobLogsRequest, page: ListJobLogsResponse, entries: Sequence[Placed]
) -> None:
    if not request.HasField("after") and len(entries) > request.tail:
        raise BrokenContract(Breach.PAGE, "the page has more entries than the tail")
    after = 0
    if request.HasField("after"):
        after = request.after.offset
        if page.epoch != request.after.epoch:
            raise BrokenContract(Breach.EPOCH, "epoch: must be that of `after`")
    last = _check_order(entries, after, "from `after` on")
    through = min(request.through_offset or page.last_offset, page.last_offset)
    if last > max(after, through):
        raise BrokenContract(Breach.ORDER, "entries.offset: must not be behind through_offset")
    _check_missing(page, entries, after, "from `after` on")
    if entries and page.next_after_offset < last:
        raise BrokenContract(Breach.PAGE, "next_after_offset: must not be before the last entry")
    if page.next_after_offset > max(after, through):
        raise BrokenContract(Breach.PAGE, "next_after_offset: must be a place in the log")
    if request.HasField("after") and after < through and page.next_after_offset <= after:
        raise BrokenContract(Breach.PAGE, "next_after_offset: must be behind `after`")


def _check_backward(
    request: ListJobLogsRequest, page: ListJobLogsResponse, entries: Sequence[Placed]
) -> None:
    start, reached = min(request.before_offset, page.last_offset + 1), page.next_before_offset
    if not (reached == 1 or reached < start):
        raise BrokenContract(Breach.PAGE, "next_before_offset: must be before `before_offset`")
    where = "from next_before_offset on"
    last = _check_order(entries, reached - 1, where)
    if entries and last >= start:
        raise BrokenContract(Breach.ORDER, "entries.offset: must be before `before_offset`")
    _check_missing(page, entries, reached - 1, where)
    if page.missing and page.missing[-1].last >= start:
        raise BrokenContract(Breach.ORDER, "missing: must be before `before_offset`")


def _check_order(entries: Sequence[Placed], after: int, where: str) -> int:
    """Return the offset of the last entry; `after` if there is none."""
    last = after
    for entry in entries:
        if entry.offset <= last:
            raise BrokenContract(Breach.ORDER, f"entries.offset: must rise, {where}")
        last = entry.offset
    return last


def _check_missing(
    page: ListJobLogsResponse, entries: Sequence[Placed], after: int, where: str
) -> None:
    last, there = after, [entry.offset for entry in entries]
    for lost in page.missing:
        if not last < lost.first <= lost.last:
            raise BrokenContract(Breach.ORDER, f"missing: must rise, {where}")
        last = lost.last
        behind = bisect_left(there, lost.first)
        if behind < len(there) and there[behind] <= lost.last:
            raise BrokenContract(Breach.ORDER, "missing: must not hold entries of the page")


def check_epoch(name: str, epoch: str) -> None:
    """Check the form of a log's epoch. Raises `BrokenContract`."""
    if not _EPOCH.fullmatch(epoch):
        raise BrokenContract(Breach.EPOCH, f"{name}: must be 1 to 32 characters of [a-z0-9]")


def check_extent(first: int, last: int) -> None:
    """Check the oldest and the newest entry of a log. Raises `BrokenContract`."""
    # An empty log has 0 and 0, or begins behind what was dropped.
    if first > last + 1:
        raise BrokenContract(Breach.ORDER, "first_offset: must not be behind last_offset")
