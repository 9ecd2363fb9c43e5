"""Where files are until they are whole: `.uploads/<tenant>/`, beside the tenants' folders.

No tenant's name begins with a dot, so that no URL leads there; and a job cannot reach
it. It is on the same file system, so that a file gets into its place by being renamed.
The functions block, for threads, and raise OSError.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from app.drive.tenants import is_tenant
from app.files.directory import Directory
from app.files.names import unguessable

FOLDER: Final = ".uploads"
#: What names in it begin with.
PUT: Final = "put-"
TRASH: Final = "trash-"
LOCK: Final = "lock"
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def staging_of(root: Path, tenant_id: str) -> Iterator[Directory]:
    """Hold the tenant's staging folder, made if it is not there."""
    with private_folder(root, tenant_id) as own:
        yield own


def private_folder(root: Path, *names: str) -> Directory:
    """Open a folder beside the tenants' that is this program's alone, made if it is not there."""
    here = Directory.open(root, follow=True)
    for name in (FOLDER, *names):
        with here as above:
            here = _private(above, name)
    return here


def _private(parent: Directory, name: str) -> Directory:
    try:
        return parent.open_directory(name)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent.descriptor)
        os.fsync(parent.descriptor)
        return parent.open_directory(name)


def tenants_in(root: Path) -> list[str]:
    """Return who has a folder, or a staging folder."""
    with Directory.open(root, follow=True) as directory:
        found = {entry.name for entry in directory.scan() if is_tenant(entry.name)}
        with suppress(FileNotFoundError), directory.open_directory(FOLDER) as staging:
            found |= {entry.name for entry in staging.scan() if is_tenant(entry.name)}
    return sorted(found)


@contextmanager
def locked(staging: Directory) -> Iterator[None]:
    """Hold the tenant's lock: nobody else puts a file into its place or deletes one meanwhile.

    All replicas on the machine take it. It is held for moments only.
    """
    descriptor = os.open(
        LOCK,
        os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
        dir_fd=staging.descriptor,
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class StagedFile:
    """A file that is being written, locked as long as it is open. For one thread at a time."""

    def __init__(self, root: Path, tenant_id: str) -> None:
        self._root = root
        self._tenant_id = tenant_id
        self.name = PUT + unguessable()
        self.size = 0
        with staging_of(root, tenant_id) as staging:
            self._descriptor = os.open(self.name, _CREATE, 0o666, dir_fd=staging.descriptor)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append; raises OSError, and then some of it may have been appended."""
        write_all(self._descriptor, data, self.size)
        self.size += len(data)

    def sync(self) -> None:
        """Wait until what has been written is on the disk; another thread may go on writing."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close it, and remove it unless it has been put into its place."""
        try:
            with staging_of(self._root, self._tenant_id) as staging, suppress(FileNotFoundError):
                staging.unlink(self.name)
        finally:
            os.close(self._descriptor)


def write_all(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write at an offset, however many calls that takes."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        offset += count
        rest = rest[count:]
