"""Removes the files of deleted jobs, one job after the other, in the background.

Which jobs those are is in the store, from the moment in which the job is no
more: what one coordinator does not get done, the next one does.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from app.coordinator.failures import CoordinatorStops, FailureBackoff, reason_of
from app.coordinator.jobs.deletion_rows import DeletedJob
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.store import Store
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.leadership.while_leading import WhileLeading
from app.coordinator.retention.kept_files import KeptFiles
from app.files.copying import Abandoned

#: Jobs that are read from the store at once.
_BATCH: Final = 100
#: Seconds before what could not be removed is tried again, at most.
_LONGEST_PAUSE: Final = 300.0

log = structlog.get_logger("scaimind.coordinator")


class Removals:
    """Owns the task and the thread that remove. Lives on the event loop."""

    def __init__(
        self, *, store: Store, files: KeptFiles, secrets: JobSecrets, leadership: Leadership
    ) -> None:
        self._store = store
        self._files = files
        self._secrets = secrets
        self._leadership = leadership
        self._news = asyncio.Event()
        self._abandoned = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="deleting")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on with what is left of the coordinator before."""
        self._news.set()
        self._task = asyncio.create_task(self._run(), name="removal of deleted jobs")

    def wake(self) -> None:
        """A job has been deleted."""
        self._news.set()

    async def close(self) -> None:
        """Stop soon; the next coordinator goes on."""
        self._abandoned.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        backoff = FailureBackoff(longest=_LONGEST_PAUSE)
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                failed = await self._remove_all()
            except CoordinatorStops:
                return
            except Exception as error:  # of the store: what is left stays in it
                log.error("deleted_jobs_not_read", exc_info=error)
                failed = True
            if not failed:
                backoff.reset()
                continue
            try:
                async with asyncio.timeout(backoff.after_failure()):
                    await self._news.wait()
            except TimeoutError:
                self._news.set()

    async def _remove_all(self) -> bool:
        """Remove what there is to remove; whether something is left. Raises sqlite3.Error."""
        failed: set[str] = set()
        while True:
            jobs = self._store.deleted_jobs(limit=_BATCH + len(failed))
            left = [job for job in jobs if job.job_id not in failed]
            if not left:
                return bool(failed)
            for job in left:
                if not await self._remove(job):
                    failed.add(job.job_id)

    async def _remove(self, job: DeletedJob) -> bool:
        wanted = WhileLeading(self._abandoned, self._leadership)
        try:
            self._leadership.check()
            self._secrets.forget(job.job_id)
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self._files.remove, job.tenant_id, job.job_id, wanted
            )
        except CoordinatorStops:
            raise
        except Abandoned:
            return False
        except Exception as error:  # of one job: the others' files must not stay for it
            log.warning(
                "job_files_not_removed",
                job_id=job.job_id,
                reason=reason_of(error),
                exc_info=None if isinstance(error, OSError) else error,
            )
            return False
        with self._store.transaction():
            self._store.forget_deleted(job.job_id)
        log.info("job_files_removed", job_id=job.job_id, tenant_id=job.tenant_id)
        return True
