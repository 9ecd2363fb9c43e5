"""Deletes jobs that have ended by their age and by the room that all of them take up.

The oldest end goes first. What another job will read stays, and is looked at
again the next time: what a waiting, running or paused job names, what a child
or an evaluation would read if it were retried.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from app.coordinator.errors import FailedPrecondition, NotFound
from app.coordinator.failures import CoordinatorStops, is_passing
from app.coordinator.jobs.deletion_rows import KeptJob
from app.coordinator.jobs.store import Store
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.retention.deletion import JobDeletion
from app.coordinator.retention.disk_bytes import DiskBytes
from app.coordinator.retention.kept_files import KeptFiles
from app.telemetry.audit import Action, Actor, Identity, Target, record

#: Jobs that are read from the store at once.
_BATCH: Final = 100
#: Microseconds by which the clock may be set back between two looks; else the next start measures.
_SET_BACK: Final = 3600 * 1_000_000
_DAY: Final = 24 * 3600 * 1_000_000

log = structlog.get_logger("scaimind.coordinator")


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """What may be kept; 0 sets no limit."""

    days: int = 0
    size_bytes: int = 0
    #: Seconds between two looks.
    interval: float = 300.0

    def reason(self, job: KeptJob, *, total: int, now: int) -> str:
        """Why the job that ended first has to go; empty if it may stay."""
        if self.days and job.ended_at < now - self.days * _DAY:
            return f"it ended more than {self.days} days ago (retention_days)"
        if self.size_bytes and total > self.size_bytes:
            return f"ended jobs have more than {self.size_bytes} bytes (retention_bytes)"
        return ""


class Retention:
    """Owns the task that looks. Lives on the event loop."""

    def __init__(
        self,
        *,
        rules: RetentionRules,
        store: Store,
        files: KeptFiles,
        deletion: JobDeletion,
        leadership: Leadership,
        disk: DiskBytes,
        clock: Callable[[], int],
    ) -> None:
        self._rules = rules
        self._store = store
        self._files = files
        self._deletion = deletion
        self._leadership = leadership
        self._disk = disk
        self._clock = clock
        self._bytes: Mapping[str, int] = {}
        #: End and id of the job up to which all are measured that have ended.
        self._measured = (0, "")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look at once, and again and again."""
        self._task = asyncio.create_task(self._run(), name="retention")

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def disk_bytes(self) -> Mapping[str, int]:
        """What is on the disks, by kind, as of the last look; empty before the first."""
        return self._bytes

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except CoordinatorStops:
                return
            except Exception as error:  # of one look: the next one does what is left
                log.error("retention_failed", exc_info=None if is_passing(error) else error)
            await asyncio.sleep(self._rules.interval)

    async def look(self) -> None:
        """Measure what has ended since the last look, and delete what has to go. Raises
        sqlite3.Error, OSError."""
        await self._measure()
        if self._rules.days or self._rules.size_bytes:
            await self._delete()
        self._bytes = await asyncio.to_thread(self._disk.measure, self._store.kept_bytes())

    async def _measure(self) -> None:
        # The clock may have been set back since the last look.
        self._measured = (max(self._measured[0] - _SET_BACK, 0), "")
        while jobs := self._store.oldest_kept(self._measured, limit=_BATCH):
            await asyncio.sleep(0)
            for job in jobs:
                self._measured = (job.ended_at, job.job_id)
                if job.size_bytes is not None:
                    continue
                await self._drop_exported(job)
                size = await asyncio.to_thread(self._files.measure, job.tenant_id, job.job_id)
                with self._store.transaction():
                    self._store.save_kept_bytes(job.job_id, size.directory, size.checkpoints)

    async def _drop_exported(self, kept: KeptJob) -> None:
        """Do what a coordinator that was killed right after an export could not."""
        job = self._store.job(kept.tenant_id, kept.job_id)
        if job is None:
            return

        def drop() -> None:
            self._leadership.check()
            self._files.drop_exported(job)

        try:
            await asyncio.to_thread(drop)
        except OSError as error:  # of one job; its files go with it
            log.warning("artefacts_kept_twice", job_id=kept.job_id, reason=error.strerror)

    async def _delete(self) -> None:
        total, behind = sum(self._store.kept_bytes()), (0, "")
        while jobs := self._store.oldest_kept(behind, limit=_BATCH):
            for job in jobs:
                behind = (job.ended_at, job.job_id)
                reason = self._rules.reason(job, total=total, now=self._clock())
                if not reason:
                    return
                if await self._delete_one(job, reason):
                    total -= job.size_bytes or 0

    async def _delete_one(self, kept: KeptJob, reason: str) -> bool:
        if self._store.may_read_again(kept.tenant_id, kept.job_id):
            return False
        job = self._store.job(kept.tenant_id, kept.job_id)
        if job is None:
            return False
        try:
            await self._deletion.delete(job, reason=reason)
        except (FailedPrecondition, NotFound):
            return False
        record(
            Action.JOB_EXPIRE,
            by=Identity(Actor.COORDINATOR),
            on=Target("job", job.job_id, job.tenant_id),
        )
        return True
