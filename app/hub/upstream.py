"""What the hub asks of the room that talks to the coordinator, and what it gets.

The hub knows neither gRPC nor protobuf nor JSON: entries and snapshots arrive
encoded. Failures arrive as `app.errors.ApiError`.
"""

import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, Self

from app.caller import Caller
from app.errors import COORDINATOR_ERROR, ErrorKind
from app.log_filter import LogFilter

_ID = re.compile(r"([a-z0-9]{1,32}):(0|[1-9][0-9]{0,17})", re.ASCII)


class Position(NamedTuple):
    """A place in a job's log, or in its metrics: everything up to `offset` is behind it."""

    epoch: str
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an SSE id, `<epoch>:<offset>`. Raises `ValueError` on anything else."""
        match = _ID.fullmatch(text)
        if match is None:
            raise ValueError("not of the form <epoch>:<offset>")
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        """Write it as an SSE id."""
        return f"{self.epoch}:{self.offset}"


class JobKey(NamedTuple):
    """What a feed is for. The tenant is part of it, so that no feed is shared between tenants."""

    tenant_id: str
    job_id: str


class LogRecord(NamedTuple):
    """One log entry: its offset, its level (higher is more severe) and its JSON, one line."""

    offset: int
    level: int
    data: bytes


class Snapshot(NamedTuple):
    """One metrics snapshot and its JSON, one line."""

    sequence: int
    data: bytes


class StatusChange(NamedTuple):
    """A status that the job took; `at` is RFC 3339 by the coordinator's clock, empty if unknown."""

    status: str
    message: str
    at: str


@dataclass(frozen=True, slots=True)
class Start:
    """How an upstream stream begins.

    The entries that follow begin right behind `after_offset`; the log holds
    `first_offset` to `last_offset` (both 0 when it is empty).
    """

    epoch: str
    after_offset: int
    first_offset: int
    last_offset: int
    status: str


@dataclass(frozen=True, slots=True)
class End:
    """The job has ended with `status`, and its log with `last_offset`."""

    status: str
    last_offset: int


class Batch(NamedTuple):
    """What became known together, to be taken in this order of fields."""

    start: Start | None = None
    records: Sequence[LogRecord] = ()
    snapshots: Sequence[Snapshot] = ()
    statuses: Sequence[StatusChange] = ()
    end: End | None = None


@dataclass(frozen=True, slots=True)
class LogPage:
    """A piece of a log that was read back.

    Everything behind the place that was asked for, up to `next_after`, has been
    looked at; `records` are those of it that pass `filter`, which was asked for. An older
    coordinator knows of a filter's level alone: whoever wants more judges them again.
    """

    epoch: str
    records: Sequence[LogRecord]
    next_after: int
    first_offset: int
    last_offset: int
    filter: LogFilter = field(default_factory=LogFilter)
    #: The job has ended, and its log with `last_offset`.
    complete: bool = False
    #: Ranges of offsets, both ends included, that the log has lost; ascending.
    missing: Sequence[tuple[int, int]] = ()
    #: Where it was read backward: everything from here on has been looked at. 0 where it was
    #: not, since an older coordinator cannot.
    next_before: int = 0
    #: Which of the records pass the filter of who reads them; None if their level says it.
    verdicts: Sequence[bool] | None = None
    #: It says nothing of the entries up to this offset: it is a part, and those before it do.
    behind: int = 0

    def parts(self, size: int) -> Iterator[Self]:
        """Split it into pages of about `size` bytes, each behind the one before."""
        behind = self.behind
        begin = length = 0
        for stop, record in enumerate(self.records[:-1], 1):
            length += len(record.data)
            if length >= size:
                yield replace(
                    self,
                    records=self.records[begin:stop],
                    next_after=record.offset,
                    verdicts=None if self.verdicts is None else self.verdicts[begin:stop],
                    behind=behind,
                )
                begin, length, behind = stop, 0, record.offset
        if not begin:
            yield self
            return
        verdicts = None if self.verdicts is None else self.verdicts[begin:]
        yield replace(self, records=self.records[begin:], verdicts=verdicts, behind=behind)


class Upstream(Protocol):
    """The coordinator, as the hub needs it. All methods raise `ApiError`.

    `request_id` goes along to the coordinator: the request of the watcher for
    which a call was made first.
    """

    async def authorize(self, caller: Caller, job_id: str) -> None:
        """Ask for the job as this caller; returns if the caller may see it."""

    def watch(
        self,
        key: JobKey,
        *,
        after: Position | None,
        tail: int,
        after_sequence: int,
        request_id: str,
    ) -> AsyncGenerator[Batch, None]:
        """Open the one stream of a job. Closing the generator cancels the call.

        It starts behind `after`, or with the `tail` newest entries where that
        is None or not a place in the log. A stream that ends without `end` was
        broken off.
        """

    async def read_after(
        self, key: JobKey, after: Position, *, through: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        """Read entries that pass a filter behind `after`, none behind `through`.

        Raises FAILED_PRECONDITION if the log has another epoch.
        """

    async def read_tail(
        self, key: JobKey, *, tail: int, through: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        """Read the first page of the `tail` newest entries that pass a filter."""

    async def read_before(
        self, key: JobKey, before: int, *, limit: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        """Read the `limit` newest entries that pass a filter before an offset, or fewer."""

    async def count_snapshots(self, key: JobKey, *, request_id: str) -> int:
        """Return the sequence of the job's newest metrics snapshot; 0 if there is none."""


def is_final(kind: ErrorKind) -> bool:
    """Whether an upstream failure will not pass by itself.

    A coordinator that crashes in a call answers INTERNAL or UNKNOWN: that may
    pass. NOT_FOUND, PERMISSION_DENIED and the like do not.
    """
    return not kind.retryable and kind is not COORDINATOR_ERROR
