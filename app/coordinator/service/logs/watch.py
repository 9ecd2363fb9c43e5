"""A job's log and metrics for those who watch it: WatchJob.

A stream's files are read on the event loop: a batch is at most 256 KiB that
was written a moment ago, and takes well under a millisecond.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from app.coordinator.errors import InvalidArgument, Overloaded
from app.coordinator.failures import FailureBackoff, is_passing, reason_of
from app.coordinator.jobs.events import JobEvents, Subscription
from app.coordinator.jobs.messages import status_message, time_message
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.states import TERMINAL
from app.coordinator.logs import log as logs
from app.coordinator.logs.damage_log import DamageLog
from app.coordinator.logs.log import LogReader, Page
from app.coordinator.metrics import snapshots as metrics
from app.coordinator.metrics.snapshots import MetricsReader
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import Cursor
from generated.mindcoordinator.v1.watch_pb2 import (
    MetricsSnapshot,
    StatusChange,
    WatchEnd,
    WatchJobRequest,
    WatchJobResponse,
    WatchStart,
)

#: Most entries and bytes of one message.
BATCH_ENTRIES: Final = 1000
BATCH_BYTES: Final = 256 * 1024
#: Most snapshots of one message; older ones are left out where newer ones replace them.
BATCH_SNAPSHOTS: Final = 100
#: Seconds that a batch waits for company when the one before it has just gone.
COALESCE: Final = 0.004
#: Seconds after which a watcher looks by itself: a notice may have been lost.
LOOK_AGAIN: Final = 1.0


async def watch(
    directory: JobDir,
    request: WatchJobRequest,
    *,
    job_events: JobEvents,
    current: Callable[[], JobRecord],
    job_id: str,
    damage: DamageLog,
) -> AsyncIterator[WatchJobResponse]:
    """Everything new about a job, until it has ended and its log is drained. Raises RequestError.

    No file is open but while it is read, and then one at a time.
    """
    if request.tail < 0:
        raise InvalidArgument("tail", "must be 0 or more")
    with job_events.subscribe(job_id) as subscription:
        try:
            start, cursor = _begin(directory, request, current())
            place = _Place(
                logs.entries_path(directory.log),
                metrics.snapshots_path(directory.metrics),
                cursor,
                _metrics_cursor(directory, request),
            )
        except Exception as error:
            if not is_passing(error):
                raise
            raise Overloaded(
                f"the job cannot be watched at the moment: {reason_of(error)}"
            ) from None
        yield WatchJobResponse(start=start)
        backoff = FailureBackoff()
        while True:
            subscription.news.clear()
            changes = subscription.take_changes()
            try:
                # Before what it wrote: what a job wrote last lies before its end.
                job = current()
                batch = _read(place, job_id, damage)
            except Exception as error:
                if not is_passing(error):
                    raise
                # The watcher loses nothing but a moment.
                subscription.put_back(changes)
                await asyncio.sleep(backoff.after_failure())
                continue
            backoff = FailureBackoff()
            if batch.logs or batch.metrics or changes:
                batch.status_changes.extend(_change(job) for job in changes)
                full = len(batch.logs) == BATCH_ENTRIES
                yield batch
                if not full:
                    await asyncio.sleep(COALESCE)
            elif job.status in TERMINAL:
                yield WatchJobResponse(
                    end=WatchEnd(status=status_message(job.status), last_offset=place.log.number)
                )
                return
            else:
                await _news(subscription)


@dataclass(slots=True)
class _Place:
    """Up to where a watcher has read, and in which files."""

    log_path: str
    metrics_path: str
    log: Cursor
    metrics: Cursor


def _read(place: _Place, job_id: str, damage: DamageLog) -> WatchJobResponse:
    """What lies behind a place, which moves behind it. Raises OSError; then it has not moved."""
    page = logs.read_behind(place.log_path, place.log, limit=BATCH_ENTRIES, max_bytes=BATCH_BYTES)
    snapshots, at = metrics.read_behind(place.metrics_path, place.metrics)
    _check(damage, job_id, place, page, snapshots, at)
    place.log, place.metrics = page.cursor, at
    # The newest: they replace those before them.
    return WatchJobResponse(logs=page.entries, metrics=snapshots[-BATCH_SNAPSHOTS:])


def _check(
    damage: DamageLog,
    job_id: str,
    place: _Place,
    page: Page,
    snapshots: list[MetricsSnapshot],
    at: Cursor,
) -> None:
    damage.check(
        job_id,
        "log",
        after=place.log.number,
        numbers=[entry.offset for entry in page.entries],
        through=page.cursor.number,
    )
    damage.check(
        job_id,
        "metrics",
        after=place.metrics.number,
        numbers=[snapshot.sequence for snapshot in snapshots],
        through=at.number,
    )


def _begin(
    directory: JobDir, request: WatchJobRequest, job: JobRecord
) -> tuple[WatchStart, Cursor]:
    with LogReader(directory.log) as log:
        last = log.last_offset()
        after = request.after
        known = request.HasField("after") and after.epoch == log.epoch and 0 <= after.offset <= last
        cursor = log.locate(after.offset if known else max(last - request.tail, 0))
        if not (page := log.read(cursor, limit=1)).entries:
            # Behind what is lost at its end: nothing else of the stream would tell of it.
            cursor = page.cursor
        return WatchStart(
            epoch=log.epoch,
            after_offset=cursor.number,
            first_offset=min(last, 1),
            last_offset=last,
            status=status_message(job.status),
        ), cursor


def _metrics_cursor(directory: JobDir, request: WatchJobRequest) -> Cursor:
    after = request.after_metrics_sequence
    with MetricsReader(directory.metrics) as reader:
        last = reader.last()
        return reader.locate(after if 0 < after <= last else max(last - 1, 0))


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
