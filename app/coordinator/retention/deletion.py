"""Deletes a job that has ended: first a mark that lasts, then its files."""

import asyncio
from typing import Final

import structlog

from app.coordinator.errors import FailedPrecondition, NotFound
from app.coordinator.execution.controller import Controller
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.states import TERMINAL
from app.coordinator.retention.kept_files import KeptFiles
from app.coordinator.retention.readers import reader_of
from app.coordinator.retention.removals import Removals

#: Seconds that a job which has just ended is given to let go of what it held.
_PATIENCE: Final = 10.0

log = structlog.get_logger("scaimind.coordinator")


class JobDeletion:
    """Deletes jobs, one at a time. Everything runs on one event loop."""

    def __init__(self, *, controller: Controller, files: KeptFiles, removals: Removals) -> None:
        self._controller = controller
        self._files = files
        self._removals = removals

    async def delete(self, job: JobRecord, *, reason: str) -> int:
        """Delete a job; returns the bytes that its files take up.

        From then on there is no such job, whatever becomes of the coordinator.
        `reason` is for the log. Raises FailedPrecondition if it has not ended
        or another job will read its files, NotFound if it is no longer there,
        and sqlite3.Error; then nothing has happened.
        """
        self._check(job)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._controller.settled(job.job_id)
        except TimeoutError:
            raise FailedPrecondition(
                "the job has ended, but is still being wound up; try again in a moment"
            ) from None
        size = (await asyncio.to_thread(self._files.measure, job.tenant_id, job.job_id)).total
        # Others may have been submitted meanwhile.
        self._check(job)
        if not self._controller.forget(job):
            raise NotFound("the job does not exist")
        log.info(
            "job_deleted",
            job_id=job.job_id,
            tenant_id=job.tenant_id,
            reason=reason,
            freed_bytes=size,
        )
        self._removals.wake()
        return size

    def _check(self, job: JobRecord) -> None:
        if job.status not in TERMINAL:
            raise FailedPrecondition(
                f"the job is {job.status.name}, and only a job that has ended can be deleted;"
                " cancel it first"
            )
        unfinished = self._controller.scheduler.jobs.values()
        if reader := reader_of(job.tenant_id, job.job_id, unfinished):
            raise FailedPrecondition(
                f"{reader.job_id} is {reader.status.name} and reads this job's files; wait until"
                " it has ended, or cancel it"
            )
