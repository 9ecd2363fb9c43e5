"""A tenant's folder: what is in it is opened, listed, put into its place and deleted.

Everything is reached from descriptors that are held, one name after the other and
without following a link: jobs write into these folders, also while they are read.
The functions block, for threads, and raise OSError and `ApiError`.
"""

import errno
import heapq
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from app.drive.drive import Item, Page, PageRequest
from app.drive.paths import DrivePath, check_deletable
from app.drive.versions import Preconditions, Version
from app.errors import FILE_CONFLICT, FILE_NOT_FOUND, ApiError
from app.files.directory import Directory, Kind, NotARegularFile
from app.files.names import is_utf8, printable, unguessable
from app.files.removing import remove_tree

#: Entries that are looked at before other threads have their turn.
_BATCH: Final = 2048
_DELETED: Final = "deleted"
_IS_DELETED: Final = re.compile(rf"\.[0-9a-f]{{32}}\.{_DELETED}\.partial")


class OpenFile:
    """A regular file that is open to be read, and its version when it was opened."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.version = Version.of(os.fstat(file.fileno()))

    @property
    def descriptor(self) -> int:
        """Its descriptor, valid until `close`."""
        return self._file.fileno()

    def close(self) -> None:
        """Close it."""
        self._file.close()


@contextmanager
def tenant_folder(root: Path, tenant_id: str) -> Iterator[Directory]:
    """Hold a tenant's folder; it may be a link of the operators'. Raises FileNotFoundError."""
    with Directory.open(root / tenant_id, follow=True) as folder:
        yield folder


def read(root: Path, tenant_id: str, path: DrivePath, page: PageRequest) -> OpenFile | Page:
    """Open the file that is there, or list the folder; a tenant's own is empty until it is made."""
    try:
        with tenant_folder(root, tenant_id) as top:
            if path.is_root:
                return _listed(top, page)
            with descend(top, path.parts[:-1]) as parent:
                return _open(parent, path, page)
    except FileNotFoundError:
        if path.is_root:
            return Page((), None)
        raise


def _open(parent: Directory, path: DrivePath, page: PageRequest) -> OpenFile | Page:
    if not path.only_folder:
        with suppress(NotARegularFile):
            return OpenFile(parent.open_file(path.name))
    if stat.S_ISDIR(parent.stat(path.name).st_mode):
        with parent.open_directory(path.name) as folder:
            return _listed(folder, page)
    if path.only_folder:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    raise NotARegularFile


@contextmanager
def descend(top: Directory, parts: tuple[str, ...]) -> Iterator[Directory]:
    """Hold the folder that the names lead to."""
    here = top.duplicate()
    try:
        for name in parts:
            below = here.open_directory(name)
            here.close()
            here = below
        yield here
    finally:
        here.close()


def _listed(folder: Directory, page: PageRequest) -> Page:
    names = heapq.nsmallest(page.size + 1, _names(folder, page.after))
    more = len(names) > page.size
    names = names[: page.size]
    items = tuple(filter(None, (_item(folder, os.fsdecode(name)) for name in names)))
    return Page(items, names[-1] if more else None)


def _names(folder: Directory, after: bytes) -> Iterator[bytes]:
    for number, entry in enumerate(folder.scan(), start=1):
        if number % _BATCH == 0:
            time.sleep(0)  # the event loop's thread gets the interpreter
        name = os.fsencode(entry.name)
        if name > after:
            yield name


def _item(folder: Directory, name: str) -> Item | None:
    try:
        about = folder.stat(name)
    except FileNotFoundError:
        return None
    mode = about.st_mode
    utf8 = is_utf8(name)
    version = Version.of(about) if stat.S_ISREG(mode) else None
    kind = (
        "file"
        if version is not None
        else "folder"
        if stat.S_ISDIR(mode)
        else "link"
        if stat.S_ISLNK(mode)
        else "special"
    )
    return Item(name if utf8 else printable(name), kind, about.st_mtime_ns, utf8, version)


def freed_bytes(about: os.stat_result) -> int:
    """Return what a file takes on the disk that goes with this name of it, as counts have it."""
    return about.st_blocks * 512 if about.st_nlink == 1 else 0


def delete(
    root: Path,
    tenant_id: str,
    path: DrivePath,
    *,
    recursive: bool,
    preconditions: Preconditions,
    trash: Directory,
    trash_name: str,
) -> int:
    """Delete what is there; returns how many bytes of a file are free then.

    A folder with something in it is moved to `trash`, if `recursive`, or to where
    `remove_deleted` finds it. The tenant's lock is held by the caller. Raises
    `ApiError`.
    """
    check_deletable(path)
    with tenant_folder(root, tenant_id) as top, descend(top, path.parts[:-1]) as parent:
        about = parent.stat(path.name)
        if stat.S_ISDIR(about.st_mode):
            preconditions.check(None)
            _delete_folder(top, parent, path, recursive, trash, trash_name)
            freed = 0
        elif path.only_folder:
            raise ApiError(FILE_NOT_FOUND)
        else:
            preconditions.check(Version.of(about) if stat.S_ISREG(about.st_mode) else None)
            parent.unlink(path.name)
            freed = freed_bytes(about)
        os.fsync(parent.descriptor)
    return freed


def _delete_folder(
    top: Directory,
    parent: Directory,
    path: DrivePath,
    recursive: bool,
    trash: Directory,
    trash_name: str,
) -> None:
    try:
        parent.rmdir(path.name)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if not recursive:
        raise ApiError(
            FILE_CONFLICT,
            "The folder is not empty. Send recursive=true to delete all that is in it.",
        )
    if path.above_checkpoints and _may_hold_checkpoints(parent, path):
        raise ApiError(
            FILE_CONFLICT,
            "The folder has, or may have, checkpoints, which go when their job is deleted. Delete"
            " what else is in it one by one.",
        )
    try:
        parent.rename(path.name, trash, trash_name)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # The tenant's folder has a file system of its own. Removing takes long, and the lock
        # is held.
        parent.rename(path.name, top, unguessable(_DELETED))


def remove_deleted(root: Path, tenant_id: str) -> None:
    """Remove folders that were deleted, as far as they are still in the tenant's."""
    with suppress(FileNotFoundError), tenant_folder(root, tenant_id) as top:
        for name in [each.name for each in top.scan() if _IS_DELETED.fullmatch(each.name)]:
            remove_tree(top, name)


def _may_hold_checkpoints(parent: Directory, path: DrivePath) -> bool:
    with parent.open_directory(path.name) as folder:
        if len(path.parts) == 1:
            # Any folder in it may be a job's, which gets checkpoints at any moment.
            with closing(folder.scan()) as entries:
                return any(entry.kind is Kind.DIRECTORY for entry in entries)
        return folder.exists("checkpoints")
