"""The output of a run on its node: what earlier runs have left of it, and what this one makes."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.coordinator.data.bucket_drive import OUTPUT, BucketDrive
from app.coordinator.engines.agent.run_part import RunPart
from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.execution.bucket.newest_run import require_newest_run
from app.coordinator.execution.bucket.parts import RunParts
from app.coordinator.jobs.model import JobRecord
from app.files.directory import Directory, LimitReached
from app.files.json_files import read_json, write_json
from app.files.removing import remove_tree
from app.files.walking import ChangedMeanwhile, Limits
from app.objects.published import seen_files

#: Which files of the output the run was given, in the run's directory.
_GIVEN: Final = "given.json"
#: Bytes of that: it has a line for each file.
_MAX_GIVEN: Final = 1 << 30


class NodeOutput:
    """Brings it there and away. Blocks: call it in a thread, one call at a time."""

    def __init__(self, *, directory: Path, bucket: BucketDrive, limits: Limits) -> None:
        """`directory` is the run's, and `limits` those of what one node has of the output."""
        self._directory = directory
        self._bucket = bucket
        self._limits = limits

    def fetch(self, job: JobRecord, path: Path, abandoned: threading.Event) -> None:
        """Have in the job's directory what former runs of it have left as their output. Raises
        Abandoned, OSError."""
        given: dict[str, tuple[int, int, int]] = {}
        with Directory.open(path) as own:
            remove_tree(own, OUTPUT)
            # There is none of a job that has not run.
            with suppress(FileNotFoundError):
                kept = self._bucket.kept(job.tenant_id, job.job_id)
                kept.fetch(OUTPUT, own, OUTPUT, abandoned)
                with own.open_directory(OUTPUT) as output:
                    given = seen_files(output, Limits(entries=self._limits.entries))
        write_json(self._directory / _GIVEN, given)

    def publish(self, part: RunPart, path: Path, abandoned: threading.Event) -> None:
        """Bring it from the job's directory to the drive, as this node's part of the run's. Raises
        CannotLaunch, Abandoned, OSError."""
        require_newest_run(self._bucket, part.job)
        kept = self._bucket.kept(part.job.tenant_id, part.job.job_id)
        try:
            with Directory.open(path) as own:
                parts = RunParts(self._bucket.store, kept.prefix, part.job.run_count)
                self._publish_part(part, parts, own, abandoned)
        except (LimitReached, ChangedMeanwhile) as error:
            raise CannotLaunch(f"its output is not taken: {error.strerror}") from None

    def _publish_part(
        self, part: RunPart, parts: RunParts, own: Directory, abandoned: threading.Event
    ) -> None:
        given = read_json(self._directory / _GIVEN, limit=_MAX_GIVEN) or {}
        with own.open_directory(OUTPUT) as output:
            seen = seen_files(output, self._limits)
        unchanged = [path for path, about in seen.items() if given.get(path) == list(about)]
        parts.publish(
            own,
            OUTPUT,
            abandoned,
            node=part.number,
            limits=self._limits,
            unchanged=unchanged,
            # All nodes were given the same.
            skipped=frozenset(unchanged) if part.number else (),
        )
