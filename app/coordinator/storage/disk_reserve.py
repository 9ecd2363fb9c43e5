"""Disk space kept aside, so that a full disk does not keep the coordinator from ending the jobs
that filled it."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Enough for some hundred steps in the database.
SIZE: Final = 4 * 1024 * 1024
#: How much more than that must be free before it is taken again.
_COMFORT: Final = 2


class DiskReserve:
    """A file that takes up space until the space is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Take the space, if there is plenty and it is not taken yet."""
        with suppress(OSError):
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                plenty = shutil.disk_usage(self._path).free > _COMFORT * SIZE
                if os.fstat(file).st_size < SIZE and plenty:
                    os.posix_fallocate(file, 0, SIZE)
            finally:
                os.close(file)

    def has_room(self) -> bool:
        """Whether the disk has as much space left as is kept aside."""
        return shutil.disk_usage(self._path.parent).free > SIZE

    def release(self) -> bool:
        """Return the space to the disk; False if none is taken."""
        with suppress(OSError):
            if self._path.stat().st_size:
                os.truncate(self._path, 0)
                return True
        return False
