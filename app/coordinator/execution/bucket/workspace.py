"""The directories of jobs on the coordinator's machine, where their runs are prepared elsewhere."""

import errno
import threading
import time
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from typing_extensions import override

from app.coordinator.data.bucket_drive import OUTPUT, BucketDrive
from app.coordinator.execution.artefacts import Exported
from app.coordinator.execution.bucket.checkpoints import look
from app.coordinator.execution.bucket.merging import Merger, sweep
from app.coordinator.execution.checkpoints import CheckpointFinder
from app.coordinator.execution.preparation import Unprepared
from app.coordinator.execution.workspace import Workspace
from app.coordinator.jobs.model import Checkpoint, JobRecord
from app.coordinator.packages.build_log import Say
from app.files.directory import Directory
from app.files.removing import remove_tree
from app.files.walking import Limits

#: Seconds between two looks at a job's checkpoints: each asks the store.
_LOOK: Final = 3.0


class BucketWorkspace(Workspace):
    """Blocks: call it in a thread. Raises as every call of the store, too."""

    asks_store = True

    def __init__(
        self,
        *,
        bucket: BucketDrive,
        limits: Limits,
        monotonic: Callable[[], float] = time.monotonic,
        **parts: Any,
    ) -> None:
        """`limits` are those of one checkpoint, and of the output; `parts` those of a
        workspace."""
        super().__init__(drive=bucket, **parts)
        self._bucket = bucket
        self._limits = limits
        self._monotonic = monotonic
        self._next_look: WeakKeyDictionary[CheckpointFinder, float] = WeakKeyDictionary()
        self._mergers: WeakKeyDictionary[CheckpointFinder, Merger] = WeakKeyDictionary()
        #: The same, by the job's id: what one has read is not read again when its run is over.
        self._mergers_of: WeakValueDictionary[str, Merger] = WeakValueDictionary()

    @override
    def prepare(self, job: JobRecord, say: Say, abandoned: threading.Event) -> None:
        self.clear_temporary(job)
        if job.artefacts_of:
            self._require_artefacts(job)

    @override
    def checkpoints(
        self, job: JobRecord, finder: CheckpointFinder, *, last: bool = False
    ) -> tuple[Checkpoint, ...]:
        now = self._monotonic()
        if now < self._next_look.get(finder, now) and not last:
            finder.leftovers = False
            return job.checkpoints
        # What runs before this one have left is looked for once.
        finder.leftovers = finder not in self._next_look
        self._next_look[finder] = now + _LOOK
        trees = self._bucket.checkpoints(job.tenant_id, job.job_id)
        keep = job.submission.output_config.max_checkpoints
        merger = self._mergers.get(finder)
        if merger is None:
            merger = self._mergers[finder] = self._merger(job, trees.prefix)
            self._mergers_of[job.job_id] = merger
        merger.merge()
        finder.notes += merger.notes
        merger.notes.clear()
        return look(trees, job.checkpoints, keep=keep, remove=merger.remove)

    @override
    def remove_leftovers(self, job: JobRecord) -> None:
        """Remove what earlier runs have left of their parts. What is over the number to keep is
        gone at once."""
        for trees in self._bucket.of_job(job.tenant_id, job.job_id):
            sweep(self._bucket.store, trees.prefix, before=job.run_count)

    @override
    def run_over(self, job: JobRecord) -> list[str]:
        checkpoints, kept = self._bucket.of_job(job.tenant_id, job.job_id)
        merger = self._mergers_of.get(job.job_id)
        if merger is None or merger.run != job.run_count:
            merger = self._merger(job, checkpoints.prefix)
        merger.merge()
        merger.remove_rest()
        output = self._merger(job, kept.prefix, noun="The job's")
        output.merge()
        if problem := output.refused.get(OUTPUT):
            raise OSError(errno.EFBIG, f"its output is not taken: {problem}")
        notes = [*merger.notes, *output.notes]
        merger.notes.clear()
        return notes

    def _merger(self, job: JobRecord, prefix: str, **about: Any) -> Merger:
        nodes = max(len(job.placement), 1)
        return Merger(
            self._bucket.store,
            prefix,
            run=job.run_count,
            nodes=nodes,
            limits=self._limits,
            **about,
        )

    def _collect(self, job: JobRecord, abandoned: threading.Event) -> None:
        """Fetch a job's output, or that of the job that it only exports."""
        owner = job.artefacts_of or job.job_id
        with Directory.open(self.directory(owner).path) as own:
            remove_tree(own, OUTPUT)
            try:
                self._bucket.kept(job.tenant_id, owner).fetch(OUTPUT, own, OUTPUT, abandoned)
            except FileNotFoundError:
                own.make_directory(OUTPUT, exist_ok=True).close()
            except ValueError:
                # Not as if the job had made nothing.
                raise OSError(
                    errno.EBADMSG, "the output's record in the drive is damaged"
                ) from None

    @override
    def export(self, job: JobRecord, abandoned: threading.Event) -> Exported:
        self._collect(job, abandoned)
        return super().export(job, abandoned)

    @override
    def drop_output(self, job: JobRecord) -> None:
        super().drop_output(job)
        self._bucket.kept(job.tenant_id, job.job_id).remove_all()

    @override
    def _require_artefacts(self, job: JobRecord) -> None:
        names = self._bucket.kept(job.tenant_id, job.artefacts_of).names()
        if OUTPUT not in [each.name for each in names]:
            raise Unprepared(self.no_artefacts(job))
