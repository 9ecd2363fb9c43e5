"""The files of a job that go with it: its directory, and its checkpoints on the drive.

Its artefacts stay where it has exported them, and so do models that it has registered.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.data.drive import CHECKPOINTS, Drive
from app.coordinator.execution.artefacts import drop_output
from app.coordinator.jobs.model import JobRecord, Kind
from app.coordinator.jobs.states import Status
from app.coordinator.resources.disk_use import freed_use
from app.coordinator.storage.job_directory import JobDir
from app.files.directory import Directory
from app.files.removing import remove_tree

#: Entries of a job that are looked at to measure it; of a larger one, so many count.
_MOST_FILES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class KeptBytes:
    """What a job takes up on the disk."""

    directory: int
    checkpoints: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.directory + self.checkpoints


class KeptFiles:
    """Measures and removes them. Blocks: call it in a thread."""

    def __init__(self, *, jobs: Path, drive: Drive) -> None:
        self._jobs = jobs
        self._drive = drive

    def measure(self, tenant_id: str, job_id: str) -> KeptBytes:
        """What would be free without the job. What cannot be read does not count."""
        directory = checkpoints = 0
        with suppress(OSError), Directory.open(self._jobs / job_id) as own:
            directory = freed_use([own], most_files=_MOST_FILES).size_bytes
        with (
            suppress(OSError),
            self._folder(tenant_id, job_id) as folder,
            folder.open_directory(CHECKPOINTS) as found,
        ):
            checkpoints = freed_use([found], most_files=_MOST_FILES).size_bytes
        if isinstance(self._drive, BucketDrive):
            with suppress(OSError):
                checkpoints = sum(tree.used() for tree in self._drive.of_job(tenant_id, job_id))
        return KeptBytes(directory, checkpoints)

    def drop_exported(self, job: JobRecord) -> None:
        """Remove what a job that is COMPLETED has brought away, if it is still there as well.
        Raises OSError."""
        if job.kind is Kind.TRAINING and job.status is Status.COMPLETED:
            drop_output(JobDir(self._jobs / job.job_id))
            if isinstance(self._drive, BucketDrive):
                self._drive.kept(job.tenant_id, job.job_id).remove_all()

    def remove(self, tenant_id: str, job_id: str, abandoned: threading.Event) -> None:
        """Remove all of it; done again, it goes on. Raises Abandoned, OSError."""
        with suppress(FileNotFoundError), Directory.open(self._jobs, follow=True) as jobs:
            remove_tree(jobs, job_id, abandoned)
        # A tenant may have put something else in the place of its folders: that is not the job's.
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            self._folder(tenant_id, job_id) as folder,
        ):
            remove_tree(folder, CHECKPOINTS, abandoned)
            self._remove_if_empty(tenant_id, job_id)
        if isinstance(self._drive, BucketDrive):
            for tree in self._drive.of_job(tenant_id, job_id):
                tree.remove_all()

    def _remove_if_empty(self, tenant_id: str, job_id: str) -> None:
        with (
            Directory.open(self._drive.tenant_root(tenant_id), follow=True) as root,
            root.open_directory("jobs") as jobs,
            suppress(OSError),  # what else is in it stays
        ):
            jobs.rmdir(job_id)

    @contextmanager
    def _folder(self, tenant_id: str, job_id: str) -> Iterator[Directory]:
        """The job's folder on the drive. Raises OSError."""
        with ExitStack() as stack:
            here = stack.enter_context(
                Directory.open(self._drive.tenant_root(tenant_id), follow=True)
            )
            for name in ("jobs", job_id):
                here = stack.enter_context(here.open_directory(name))
            yield here
