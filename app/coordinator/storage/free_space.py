"""The space that stays free on the coordinator's disks: below it no job is taken up."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from app.coordinator.errors import Overloaded

_MIB: Final = 1024 * 1024
#: Where nothing is set: a share of the disk, and the most that is.
_SHARE: Final = 0.01
_MOST: Final = 1024 * _MIB


class FreeSpace:
    """Asks the system for each submission: a call that reads no disk."""

    def __init__(self, folders: Iterable[Path], *, drive: Path, floor: int = 0) -> None:
        """`drive` has the tenants' folders, each of which may be a disk of its own. `floor` is in
        bytes; 0 is a share of each disk."""
        self._folders = tuple(folders)
        self._drive = drive
        self._floor = floor

    def check(self, tenant_id: str) -> None:
        """Raise Overloaded, with the numbers, if too little is free on one of the disks that the
        tenant's jobs write to."""
        for folder in (*self._folders, self._drive, self._drive / tenant_id):
            try:
                disk = shutil.disk_usage(folder)
            except OSError:  # what writes there says what is wrong
                continue
            floor = self._floor or min(int(disk.total * _SHARE), _MOST)
            if disk.free < floor:
                full = "" if disk.free else f" ({os.strerror(errno.ENOSPC)})"
                raise Overloaded(
                    f"the coordinator's disk has {_shown(disk.free)} free{full}, and below"
                    f" {_shown(floor)} (min_free_bytes) no job is taken up; delete jobs that have"
                    " ended, or have an operator free some space"
                )


def _shown(size: int) -> str:
    return f"{size // _MIB} MiB" if size >= _MIB or not size else f"{max(size // 1024, 1)} KiB"
