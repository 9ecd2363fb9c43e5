"""What a runner writes down of itself, for whoever has to end its run in its stead."""

import os
import time
from typing import Final

from app.coordinator.failures import is_disk_full
from app.coordinator.isolation.sandbox import Sandbox
from app.coordinator.storage.job_directory import RunDir
from app.coordinator.storage.process_identity import living_marks, process_identity
from app.files.json_files import write_json

#: Seconds between two attempts on a full disk.
_ROOM_INTERVAL: Final = 1.0


class RunnerRecord:
    """The file `runner.json`: who the runner is, and what it has started."""

    def __init__(self, directory: RunDir) -> None:
        self._directory = directory
        self._retry_at: float | None = None

    def write(self, sandbox: Sandbox | None) -> None:
        """Write it. Raises OSError."""
        who = process_identity(os.getpid())
        if sandbox is not None:
            who["sandbox"] = living_marks(sandbox.process_pids)
            who["process_groups"] = sandbox.rank_pids()
        write_json(self._directory.runner, who)

    def update(self, sandbox: Sandbox | None) -> None:
        """Write it; on a full disk `update_if_due` tries again. Raises OSError."""
        try:
            self.write(sandbox)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._retry_at = time.monotonic() + _ROOM_INTERVAL
        else:
            self._retry_at = None

    def update_if_due(self, sandbox: Sandbox | None) -> None:
        """Repeat an update that the disk had no room for. Raises OSError."""
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self.update(sandbox)
