"""The background writer of the job cache: whatever PostgreSQL does, no request waits for it."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from time import perf_counter
from typing import Any, Protocol

import orjson
import psycopg2
import structlog

from app.cache import statements
from app.cache.settings import CacheSettings
from app.cache.write_buffer import (
    Buffer,
    Change,
    Copy,
    JsonObject,
    Key,
    PendingUpdate,
    status_number,
    time_of,
)
from app.database.errors import DatabaseError
from app.shortening import shortened
from app.tasks.backoff import Backoff
from app.telemetry.metrics import Metrics

log = structlog.get_logger()

#: Rows that one statement of the purge deletes.
_PURGE_ROWS = 1000
#: Seconds in which a copy that waits to be written is not taken anew for a job that many poll.
_SEEN_AGAIN = 1.0
_MAX_ID = 256
#: What is indexed of a name; the copy has all of it.
_MAX_NAME = 256
_MAX_JOB_BYTES = 256 * 1024


class Database(Protocol):
    """What the writer needs of the pool. Both raise `DatabaseError`."""

    async def take(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""

    async def write(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement."""


class JobWriter:
    """Keeps `mod_scaimind_jobs` up to date with what this replica sees of jobs.

    `record_job` and `record_status` put it into a bounded buffer and return; a task writes
    the buffer, many jobs with one statement. While the database does not take
    it, the newest state of the jobs heard of last waits for it to come back;
    what is given up meanwhile is counted.
    """

    #: Pause after a failure, in seconds: the first, and the longest.
    SHORTEST_PAUSE = 0.5
    LONGEST_PAUSE = 10.0
    #: Seconds that the last writes may take when the gateway stops.
    CLOSE_TIMEOUT = 2.0

    def __init__(
        self,
        *,
        database: Database,
        settings: CacheSettings,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._buffer = Buffer(limit=settings.buffer_jobs)
        self._filled = asyncio.Event()
        self._closing = asyncio.Event()
        self._failures = 0
        self._backoff = Backoff(shortest=self.SHORTEST_PAUSE, longest=self.LONGEST_PAUSE)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._write(), name="job-cache-writer"),
            loop.create_task(self._purge(), name="job-cache-purge"),
        ]

    def record_job(self, tenant_id: str, job: JsonObject) -> None:
        """Record a job as the coordinator just returned it to a caller of this tenant.

        A job of revision 0 is what is known of it so far: it fills in for a
        copy where there is none, and otherwise tells a status alone.
        """
        key, now = Key(tenant_id, job["job_id"]), self._clock()
        if self._buffer.holds(key, job, since=now - _SEEN_AGAIN):
            return
        copy = Copy.of(job, seen=now)
        change = None if copy.revision else Change(copy.status_at, copy.status, job["message"])
        self._put(key, PendingUpdate(copy, change))

    def record_status(
        self, tenant_id: str, job_id: str, *, status: str, message: str, at: str
    ) -> None:
        """Record a status that a job took at `at`, RFC 3339, by the coordinator's clock."""
        time = time_of(at)
        assert time is not None
        self._put(
            Key(tenant_id, job_id),
            PendingUpdate(change=Change(time, status_number(status), message)),
        )

    async def delete_job(self, tenant_id: str, job_id: str, *, known: bool = False) -> None:
        """Have no replica show a job any more: when this returns, unless the database does not
        answer; then as soon as it does.

        What this or another replica still holds of the job is not written. With
        `known` only a job that was written before is marked: anybody may name
        one that there never was.
        """
        key = Key(tenant_id, job_id)
        statement = statements.DELETE_KNOWN_JOBS if known else statements.DELETE_JOBS
        if not known:
            self._put(key, PendingUpdate(deleted=True))
        try:
            await self._database.write(statement, _columns([key]))
        except (DatabaseError, psycopg2.Error) as error:
            log.warning("job_cache_delete_failed", reason=str(error) or type(error).__name__)

    def forget_job(self, tenant_id: str, job_id: str) -> None:
        """Have a job no longer shown, if it ever was: the coordinator does not know it."""
        self._put(Key(tenant_id, job_id), PendingUpdate(missing=True))

    async def close(self) -> None:
        """Write what can be written within `CLOSE_TIMEOUT`, and end the tasks."""
        self._closing.set()
        self._filled.set()
        writer, *others = self._tasks
        await asyncio.wait((writer,), timeout=self.CLOSE_TIMEOUT)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(writer, *others, return_exceptions=True)
        self._drop("shutdown", len(self._buffer))

    def _put(self, key: Key, update: PendingUpdate) -> None:
        if not all(0 < len(part) <= _MAX_ID and "\0" not in part for part in key):
            self._drop("invalid", 1)
            return
        self._drop("full", self._buffer.put(key, update))
        self._metrics.cache_waiting.set(len(self._buffer))
        self._filled.set()

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self._metrics.cache_dropped.labels(reason=reason).inc(count)

    async def _write(self) -> None:
        while True:
            await self._filled.wait()
            # More about the same jobs may come, and others to share a statement with.
            await self._pause(self._settings.flush_interval)
            self._filled.clear()
            while self._buffer:
                if not await self._write_some():
                    if self._closing.is_set():
                        return
                    await self._pause(self._backoff.pause())
            if self._closing.is_set():
                return

    async def _write_some(self) -> bool:
        """Write the jobs that wait longest; whether that went well."""
        taken = self._buffer.take(self._settings.batch_jobs)
        began = perf_counter()
        try:
            await self._save(taken)
        except DatabaseError as error:
            self._note_failure(str(error))
            self._drop("full", self._buffer.put_back(taken))
        except psycopg2.Error as error:
            # The statement's own fault, or that of a schema which is not ours: the
            # next try would fail too.
            self._note_failure(f"{type(error).__name__} ({error.pgcode})")
            self._drop("refused", len(taken))
        except Exception:
            # A mistake of ours; the writer has to live on for the jobs that come next.
            log.exception("job_cache_writer_crashed")
            self._note_failure("a defect")
            self._drop("refused", len(taken))
        except asyncio.CancelledError:
            self._buffer.put_back(taken)
            raise
        else:
            self._note_success(len(taken), perf_counter() - began)
        self._metrics.cache_waiting.set(len(self._buffer))
        return not self._failures

    async def _save(self, taken: Mapping[Key, PendingUpdate]) -> None:
        copies = [row for key, each in taken.items() if (row := self._copy_row(key, each.copy))]
        changes = [_change_row(key, each.change) for key, each in taken.items() if each.change]
        deleted = [key for key, each in taken.items() if each.deleted]
        if deleted:
            await self._database.write(statements.DELETE_JOBS, _columns(deleted))
        missing = [key for key, each in taken.items() if each.missing and not each.deleted]
        if missing:
            await self._database.write(statements.DELETE_KNOWN_JOBS, _columns(missing))
        if copies:
            await self._database.write(statements.SAVE_COPIES, _columns(copies))
        if changes:
            await self._database.write(statements.SAVE_CHANGES, _columns(changes))

    def _copy_row(self, key: Key, copy: Copy | None) -> tuple[Any, ...] | None:
        if copy is None:
            return None
        job = copy.job
        text = orjson.dumps(job)
        if len(text) > _MAX_JOB_BYTES:
            self._drop("too_large", 1)
            return None
        name = shortened(_text(job["name"]), _MAX_NAME)
        labels = {_text(key): _text(value) for key, value in job.get("labels", {}).items()}
        return (
            *key,
            copy.revision,
            copy.updated_at,
            copy.status,
            copy.status_at,
            _text(job["message"]),
            name,
            name.casefold(),
            _text(job.get("user_id", "")),
            orjson.dumps(labels).decode(),
            _text(job.get("parent_job_id", "")),
            job.get("training_config", {}).get("priority", 0),
            job.get("resource_config", {}).get("gpu_count", 0),
            time_of(job.get("created_at")) or copy.updated_at,
            time_of(job.get("started_at")),
            time_of(job.get("ended_at")),
            text.decode(),
            max(self._clock() - copy.seen, 0.0),
        )

    def _note_failure(self, why: str) -> None:
        if not self._failures:
            log.warning("job_cache_write_failed", reason=why)
        self._failures += 1
        self._metrics.cache_writes.labels(result="failed").inc()

    def _note_success(self, jobs: int, seconds: float) -> None:
        if self._failures:
            log.info("job_cache_write_recovered", failures=self._failures)
        self._failures = 0
        self._backoff.reset()
        self._metrics.cache_writes.labels(result="ok").inc()
        self._metrics.cache_written.inc(jobs)
        self._metrics.cache_write_seconds.observe(seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when the gateway stops."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _purge(self) -> None:
        """Delete what was not seen for long, a piece at a time."""
        days = self._settings.retention_days
        # Under the pool is `asyncio.wait_for`, which before Python 3.12 can lose a cancellation.
        while not self._closing.is_set():
            # Replicas take turns by chance.
            await asyncio.sleep(self._settings.purge_interval * random.uniform(0.5, 1.0))
            try:
                await self._purge_rows(statements.PURGE_DELETED)
                if days:
                    await self._purge_rows(statements.PURGE, days)
                    await self._database.write(statements.PURGE_TALLIES, (days,))
            except (DatabaseError, psycopg2.Error) as error:
                log.warning("job_cache_purge_failed", reason=type(error).__name__)

    async def _purge_rows(self, statement: str, *parameters: int) -> None:
        """Delete rows, a piece at a time. Raises DatabaseError, psycopg2.Error."""
        gone = _PURGE_ROWS
        while gone == _PURGE_ROWS:
            [(gone,)] = await self._database.take(statement, (*parameters, _PURGE_ROWS))
            self._metrics.cache_purged.inc(gone)


def _change_row(key: Key, change: Change) -> tuple[str, str, int, datetime, str]:
    return (*key, change.status, change.at, _text(change.message))


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _text(text: str) -> str:
    """PostgreSQL's text cannot hold NUL."""
    return text.replace("\0", "")
