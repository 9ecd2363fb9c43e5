"""What a job reads: fetched from ScaiDrive into the cache, or read where it is."""

import errno
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from app.coordinator.data.cache import DataCache
from app.coordinator.data.drive import SCHEME, BadUrl, Drive
from app.coordinator.data.pinned import PinnedFiles
from app.coordinator.identity.access import Access
from app.coordinator.jobs.model import JobRecord

log = structlog.get_logger("scaimind.coordinator")


class Inputs:
    """Makes what jobs name readable for their processes. Blocks: call it in a thread."""

    def __init__(self, *, drive: Drive, cache: DataCache | None, clock: Callable[[], int]) -> None:
        """Without a cache, everything is read where it is."""
        self._drive = drive
        self._cache = cache
        self._clock = clock
        self._pinned = PinnedFiles(drive.root)

    def open(self, *, running: Collection[str]) -> None:
        """Take up what a former coordinator left; `running` are the jobs that still use it.
        Raises OSError."""
        if self._cache is not None:
            self._cache.open(running=running)
        self._pinned.open(running=running)

    def fetch(self, job: JobRecord, url: str, abandoned: threading.Event) -> Path:
        """Where the job's processes read a file or a directory until `release`.

        What is on ScaiDrive is fetched into the cache, if it fits there, and
        else read in place under names of the job's own: whatever is replaced or
        deleted meanwhile, the job reads what was there. Models and allowed paths
        of this machine are read where they are. Raises BadUrl, Abandoned, OSError.
        """
        access = access_of(job)
        if url.startswith(SCHEME) and self._cache is not None:
            try:
                cached = self._cache.fetch(
                    self._drive.filesystem(access),
                    url,
                    tenant_id=job.tenant_id,
                    job_id=job.job_id,
                    node_ids=job.node_ids,
                    abandoned=abandoned,
                    now=self._clock(),
                )
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                cached = None
            if cached is not None:
                return cached
            log.warning("data_set_not_cached", tenant_id=job.tenant_id, url=url)
            place = self._drive.place(access, url)
            if (pinned := self._pinned.pin(job.job_id, place, abandoned)) is not None:
                return pinned
        return self._drive.find(access, url)

    def release(self, job_id: str) -> None:
        """The job reads nothing any more."""
        if self._cache is not None:
            self._cache.release(job_id)
        self._pinned.release(job_id)


def access_of(job: JobRecord) -> Access:
    """What a job's files are used with: made of its grant. Raises BadUrl."""
    if job.grant is None:
        raise BadUrl("the job has no grant for its data; submit it again")
    return job.grant.access(job.job_id)
