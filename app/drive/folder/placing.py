"""How a finished file gets to its path in the tenant's folder: renamed, or copied before.

The functions block, for threads, and raise OSError and `ApiError`.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from app.drive.drive import Stored
from app.drive.folder import staging
from app.drive.folder.tree import descend, freed_bytes, tenant_folder
from app.drive.paths import DrivePath
from app.drive.threads import Strand
from app.drive.versions import Preconditions, Version
from app.errors import FILE_CONFLICT, ApiError
from app.files.copying import copy_part
from app.files.directory import Directory
from app.files.names import unguessable

#: Bytes that are copied at once.
_PIECE: Final = 64 * 1024 * 1024
_UNNAMED: Final = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: What open(2) answers where a file system has no files without a name.
_HAS_NO_UNNAMED: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


def _current(parent: Directory, name: str) -> os.stat_result | None:
    """Return what the system says of the file that is there, None if nothing is.

    Raises `ApiError` (`FILE_CONFLICT`) if anything else is there.
    """
    try:
        about = parent.stat(name)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(about.st_mode):
        raise ApiError(FILE_CONFLICT, "What is at the path is not a regular file. Delete it first.")
    return about


def _version(about: os.stat_result | None) -> Version | None:
    return None if about is None else Version.of(about)


def check_destination(
    root: Path, tenant_id: str, path: DrivePath, preconditions: Preconditions
) -> None:
    """Raise `ApiError` if a file could not be put there now."""
    with _conflicts():
        try:
            with (
                tenant_folder(root, tenant_id) as top,
                descend(top, path.parts[:-1]) as parent,
            ):
                preconditions.check(_version(_current(parent, path.name)))
        except FileNotFoundError:
            preconditions.check(None)


@contextmanager
def _conflicts() -> Iterator[None]:
    """Say what is wrong with a destination whose way leads through what is no folder."""
    try:
        yield
    except NotADirectoryError:
        raise ApiError(FILE_CONFLICT, "What is above the path is not a folder.") from None
    except IsADirectoryError:
        raise ApiError(FILE_CONFLICT, "A folder is at the path.") from None


@contextmanager
def made_folder(root: Path, tenant_id: str, parts: tuple[str, ...]) -> Iterator[Directory]:
    """Hold a folder below the tenant's; what is missing of the way is made, durably."""
    with suppress(FileExistsError), Directory.open(root, follow=True) as all_tenants:
        os.mkdir(tenant_id, dir_fd=all_tenants.descriptor)
        os.fsync(all_tenants.descriptor)
    with tenant_folder(root, tenant_id) as top:
        here = top.duplicate()
        try:
            for name in parts:
                below = _made(here, name)
                here.close()
                here = below
            yield here
        finally:
            here.close()


def _made(parent: Directory, name: str) -> Directory:
    try:
        return parent.open_directory(name)
    except FileNotFoundError:
        below = parent.make_directory(name, exist_ok=True)
        os.fsync(parent.descriptor)
        return below


class Placement:
    """A finished file of the staging folder, on its way to its path. For one thread at a time.

    Its content is on the disk already.
    """

    def __init__(self, root: Path, tenant_id: str, path: DrivePath, name: str) -> None:
        """`name` is that of the file in the tenant's staging folder."""
        self._root = root
        self._tenant_id = tenant_id
        self._path = path
        self._name = name
        self._copy: _Copy | None = None

    def put(self, preconditions: Preconditions) -> Stored | None:
        """Put the file into its place, with the tenant's lock; None if it has to be copied before.

        Whoever reads the path finds the old file or the new one. When this
        returns, its name is on the disk. Raises `ApiError`.
        """
        with (
            staging.staging_of(self._root, self._tenant_id) as own,
            staging.locked(own),
            _conflicts(),
            self._parent() as parent,
        ):
            before = _current(parent, self._path.name)
            preconditions.check(_version(before))
            if not self._moved(own, parent):
                return None
            version = Version.of(parent.stat(self._path.name))
            os.fsync(parent.descriptor)
        return Stored(version, _version(before), 0 if before is None else freed_bytes(before))

    def copy_some(self) -> bool:
        """Copy a part of the file to the file system of its path; return whether more is left.

        Without the lock. Nobody can see the copy.
        """
        if self._copy is None:
            with (
                staging.staging_of(self._root, self._tenant_id) as own,
                _conflicts(),
                self._parent() as parent,
                own.open_file(self._name) as staged,
            ):
                self._copy = _Copy(os.dup(staged.fileno()), parent.duplicate())
        return self._copy.go_on()

    def close(self) -> None:
        """Remove a copy that did not get to its place."""
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()

    def _parent(self) -> AbstractContextManager[Directory]:
        return made_folder(self._root, self._tenant_id, self._path.parts[:-1])

    def _moved(self, own: Directory, parent: Directory) -> bool:
        if self._copy is not None and self._copy.complete:
            self._copy.put(parent, self._path.name)
            own.unlink(self._name)
            return True
        try:
            own.rename(self._name, parent, self._path.name)
        except OSError as error:
            # The operators have put the tenant's folder on a file system of its own.
            if error.errno == errno.EXDEV:
                return False
            raise
        return True


async def placed(
    strand: Strand, placement: Placement, put: Callable[[Placement], Stored | None]
) -> Stored:
    """Put a file into its place, whatever file system that is on. Raises `ApiError`.

    `put` calls the placement's.
    """
    try:
        while (stored := await strand.run(partial(put, placement))) is None:
            while await strand.run(placement.copy_some):
                pass
        return stored
    finally:
        strand.end(placement.close)


class _Copy:
    """A file that becomes one on another file system. Owns what it is given."""

    def __init__(self, source: int, folder: Directory) -> None:
        self._source = source
        self._folder = folder
        self._size = os.fstat(source).st_size
        self._offset = 0
        #: Empty while it has none: then it goes with the process, too.
        self._name = ""
        self._target = self._opened()

    def _opened(self) -> int:
        try:
            return os.open(".", _UNNAMED, 0o666, dir_fd=self._folder.descriptor)
        except OSError as error:
            if error.errno not in _HAS_NO_UNNAMED:
                raise
        self._name = unguessable()
        return os.open(self._name, _CREATE, 0o666, dir_fd=self._folder.descriptor)

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return self._offset == self._size

    def go_on(self) -> bool:
        """Copy a part, durably; return whether more is left."""
        if not self.complete:
            count = min(_PIECE, self._size - self._offset)
            self._offset += copy_part(self._source, self._target, self._offset, count)
        os.fsync(self._target)
        return not self.complete

    def put(self, parent: Directory, name: str) -> None:
        """Name it, in the place of a file that is there."""
        if not self._name:
            self._name = unguessable()
            # linkat(2): the only way to name a file that has no name, without privileges.
            os.link(
                f"/proc/self/fd/{self._target}",
                self._name,
                dst_dir_fd=self._folder.descriptor,
                follow_symlinks=True,
            )
        self._folder.rename(self._name, parent, name)
        self._name = ""

    def close(self) -> None:
        """Remove it unless it was put into its place."""
        if self._name:
            with suppress(OSError):
                self._folder.unlink(self._name)
        os.close(self._target)
        os.close(self._source)
        self._folder.close()
