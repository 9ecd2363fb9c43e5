"""A job's log and metrics for those who ask: WatchJob and ListJobLogs.

A stream's files are read on the event loop: a batch is at most 256 KiB that
was written a moment ago, and takes well under a millisecond. A page of the log
is read in a thread: a rare level makes it look at many places.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Final

from generated.mindcoordinator.v1.watch_pb2 import (
    ListJobLogsRequest,
    ListJobLogsResponse,
    MetricsSnapshot,
    StatusChange,
    WatchEnd,
    WatchJobRequest,
    WatchJobResponse,
    WatchStart,
)

from .board import Board, Subscription
from .jobdir import JobDir
from .journal import Cursor
from .logs import LogReader, Page
from .messages import status_message, time_message
from .metrics import MetricsReader
from .records import JobRecord
from .refusals import FailedPrecondition, InvalidArgument
from .states import TERMINAL

#: Most entries and bytes of one message.
BATCH_ENTRIES: Final = 1000
BATCH_BYTES: Final = 256 * 1024
#: Most snapshots of one message; older ones are left out where newer ones replace them.
BATCH_SNAPSHOTS: Final = 100
#: Seconds that a batch waits for company when the one before it has just gone.
COALESCE: Final = 0.004
#: Seconds after which a watcher looks by itself: a notice may have been lost.
LOOK_AGAIN: Final = 1.0

_DEFAULT_PAGE: Final = 1000
_MAX_PAGE: Final = 10_000
_PAGE_BYTES: Final = 1024 * 1024


def list_logs(
    directory: JobDir, request: ListJobLogsRequest, *, ended: bool
) -> ListJobLogsResponse:
    """A page of a job's log. Blocks. Raises Refused."""
    if request.page_size < 0 or request.page_size > _MAX_PAGE:
        raise InvalidArgument("page_size", f"it is not from 0 to {_MAX_PAGE}")
    for name in ("tail", "through_offset"):
        if getattr(request, name) < 0:
            raise InvalidArgument(name, "it is below 0")
    if request.after.offset < 0:
        raise InvalidArgument("after.offset", "it is below 0")
    with LogReader(directory.log) as log:
        last = log.last_offset()
        through = min(request.through_offset or last, last)
        if request.HasField("after"):
            if request.after.epoch != log.epoch:
                raise FailedPrecondition(
                    "after.epoch: it is not the epoch of this log; read from the start or a tail"
                )
            start = log.locate(min(request.after.offset, last))
        else:
            start = log.tail(request.tail, min_level=request.min_level, through=through)
        page = Page([], start)
        if start.number < through:
            page = log.select(
                start,
                limit=request.page_size or _DEFAULT_PAGE,
                min_level=request.min_level,
                through=through,
                max_bytes=_PAGE_BYTES,
            )
        return ListJobLogsResponse(
            epoch=log.epoch,
            entries=page.entries,
            next_after_offset=page.cursor.number,
            first_offset=min(last, 1),
            last_offset=last,
            complete=ended,
        )


async def watch(
    directory: JobDir,
    request: WatchJobRequest,
    *,
    board: Board,
    current: Callable[[], JobRecord],
    job_id: str,
) -> AsyncIterator[WatchJobResponse]:
    """Everything new about a job, until it has ended and its log is drained."""
    if request.tail < 0:
        raise InvalidArgument("tail", "it is below 0")
    with ExitStack() as resources:
        subscription = resources.enter_context(board.subscribe(job_id))
        log = resources.enter_context(LogReader(directory.log))
        metrics = resources.enter_context(MetricsReader(directory.metrics))
        cursor, start = _begin(log, request, current())
        at = _metrics_cursor(metrics, request.after_metrics_sequence)
        yield WatchJobResponse(start=start)
        while True:
            subscription.news.clear()
            # Read before the log: what a job wrote last lies before its end.
            job = current()
            changes = subscription.take_changes()
            page = log.read(cursor, limit=BATCH_ENTRIES, max_bytes=BATCH_BYTES)
            snapshots, at = _newest(metrics, at)
            if page.entries or snapshots or changes:
                cursor = page.cursor
                yield WatchJobResponse(
                    logs=page.entries,
                    metrics=snapshots,
                    status_changes=[_change(job) for job in changes],
                )
            elif job.status in TERMINAL:
                yield WatchJobResponse(
                    end=WatchEnd(status=status_message(job.status), last_offset=cursor.number)
                )
                return
            else:
                await _news(subscription)
                continue
            if len(page.entries) < BATCH_ENTRIES:
                await asyncio.sleep(COALESCE)


def _begin(log: LogReader, request: WatchJobRequest, job: JobRecord) -> tuple[Cursor, WatchStart]:
    last = log.last_offset()
    after = request.after
    known = request.HasField("after") and after.epoch == log.epoch and 0 <= after.offset <= last
    offset = after.offset if known else max(last - request.tail, 0)
    return log.locate(offset), WatchStart(
        epoch=log.epoch,
        after_offset=offset,
        first_offset=min(last, 1),
        last_offset=last,
        status=status_message(job.status),
    )


def _metrics_cursor(metrics: MetricsReader, after: int) -> Cursor:
    last = metrics.last()
    return metrics.locate(after if 0 < after <= last else max(last - 1, 0))


def _newest(metrics: MetricsReader, at: Cursor) -> tuple[list[MetricsSnapshot], Cursor]:
    """The newest of the snapshots behind `at`."""
    snapshots, at = metrics.after(at)
    return snapshots[-BATCH_SNAPSHOTS:], at


def _change(job: JobRecord) -> StatusChange:
    return StatusChange(
        status=status_message(job.status),
        message=job.message,
        timestamp=time_message(job.updated_at),
    )


async def _news(subscription: Subscription) -> None:
    try:
        async with asyncio.timeout(LOOK_AGAIN):
            await subscription.news.wait()
    except TimeoutError:
        return
