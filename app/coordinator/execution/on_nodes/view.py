"""A drive of one run's own: of the object store, what the job's grant names."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.coordinator.data.bucket_drive import BucketDrive, is_in_store
from app.coordinator.data.drive import CHECKPOINTS, BadUrl, Drive
from app.coordinator.execution.inputs import access_of
from app.coordinator.execution.on_nodes.object_cache import ObjectCache
from app.coordinator.jobs.model import JobRecord
from app.files.directory import Directory
from app.files.removing import remove_tree
from app.files.walking import Position
from app.objects.trees import Member


class DriveView:
    """Fills a directory with it. Blocks: call it in a thread."""

    def __init__(self, *, bucket: BucketDrive, cache: ObjectCache, local: Drive) -> None:
        """`local` is what is filled: the drive that the run's files are used by."""
        self._bucket = bucket
        self._cache = cache
        self._local = local

    def fill(self, job: JobRecord, abandoned: threading.Event) -> None:
        """Have there what the job names, in the place of what was there before; what is not in
        the store is left out.

        Raises BadUrl for what is too much, LimitReached, Abandoned, OSError.
        """
        for root in (self._local.root, self._local.atlas):
            assert root is not None
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
        access = access_of(job)
        for url in _named(job):
            with suppress(_Missing):
                tree = self._tree(job, url)
                place = self._local.place(access, url)
                self._put(job.tenant_id, tree, place.root, place.parts, abandoned)
        self._fetch_checkpoint(job, abandoned)

    def _tree(self, job: JobRecord, url: str) -> list[Member]:
        access = access_of(job)
        if not self._bucket.kind(access, url):
            raise _Missing
        return self._bucket.tree(access, url)

    def _put(
        self,
        tenant_id: str,
        tree: list[Member],
        root: Path,
        parts: tuple[str, ...],
        abandoned: threading.Event,
    ) -> None:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        *folders, name = parts
        if [member.path for member in tree] == [""]:
            tree = [Member(name, tree[0].stored)]
        else:
            folders.append(name)
        with Directory.open(root) as top, Position(top) as position:
            position.follow(tuple(folders))
            self._cache.place(tenant_id, tree, position.directory, abandoned)

    def _fetch_checkpoint(self, job: JobRecord, abandoned: threading.Event) -> None:
        """Fetch the job's own checkpoint that it goes on from, to where it writes the next.

        It is the run's to change, and so no link to what others use as well.
        """
        own = f"{self._local.url(job.tenant_id, f'jobs/{job.job_id}/{CHECKPOINTS}')}/"
        if not job.resume_from.startswith(own):
            return
        name, _, rest = job.resume_from.removeprefix(own).partition("/")
        if rest:
            raise BadUrl(f"{job.resume_from} is not one of the job's checkpoints")
        root = self._local.tenant_root(job.tenant_id)
        with Directory.open(root) as top, Position(top) as position:
            position.follow(("jobs", job.job_id, CHECKPOINTS))
            directory = position.directory
            remove_tree(directory, name)
            try:
                self._bucket.checkpoints(job.tenant_id, job.job_id).fetch(
                    name, directory, name, abandoned
                )
            except (FileNotFoundError, ValueError):
                raise BadUrl(f"{job.resume_from} does not exist") from None


class _Missing(Exception):
    """Nothing is there: what needs it says so, as it does on a drive that is a folder."""


def _named(job: JobRecord) -> Iterator[str]:
    """Yield the URLs of the store that the job reads."""
    assert job.grant is not None
    read = [source.path for source in job.submission.data_config.sources]
    written = {job.submission.output_config.path} - set(read)
    own = f"scaidrive://{job.tenant_id}/jobs/{job.job_id}"
    for url in job.grant.urls:
        if is_in_store(url) and url != own and not url.startswith(f"{own}/") and url not in written:
            yield url
