"""What the coordinator's directories take up on the disk, by kind."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from app.coordinator.jobs.model import JobRecord
from app.coordinator.resources.disk_use import disk_use
from app.coordinator.retention.kept_files import KeptFiles

#: Entries of a directory that are looked at; of a larger one, so many count.
_MOST_FILES: Final = 1_000_000


class DiskBytes:
    """Measures. Blocks: call it in a thread."""

    def __init__(
        self,
        *,
        files: KeptFiles,
        unfinished: Callable[[], Iterable[JobRecord]],
        database: Path,
        folders: Mapping[str, Path],
    ) -> None:
        """`folders` are measured as they are, by the kind that each holds."""
        self._files = files
        self._unfinished = unfinished
        self._database = database
        self._folders = folders

    def measure(self, ended: tuple[int, int]) -> Mapping[str, int]:
        """Bytes by kind; `ended` are those of jobs that have ended: directories, checkpoints."""
        jobs, checkpoints = ended
        for job in list(self._unfinished()):
            size = self._files.measure(job.tenant_id, job.job_id)
            jobs += size.directory
            checkpoints += size.checkpoints
        found = {"jobs": jobs, "checkpoints": checkpoints, "store": self._store_bytes()}
        for kind, folder in self._folders.items():
            use = disk_use([str(folder)], most_bytes=2**62, most_files=_MOST_FILES)
            found[kind] = use.size_bytes
        return found

    def _store_bytes(self) -> int:
        beside = self._database.parent.glob(f"{self._database.name}*")
        return sum(path.stat().st_size for path in beside if path.is_file())
