"""A directory that is held open, and operations relative to it.

Whatever becomes of the directory's path meanwhile, an operation takes place in
the directory that was opened. No operation follows a symbolic link: a link in
the place of a file or a directory is an error. No open waits for a named pipe.
"""

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from app.files.names import component, unguessable

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: What open(2) answers where a link, a socket or a device without a driver is.
_NO_FILE: Final = (errno.ELOOP, errno.ENXIO, errno.ENODEV)


class NotARegularFile(OSError):
    """A link, a directory or a special file is where a file was expected."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file")


class LimitReached(OSError):
    """A tree or a file is larger than the caller accepts; the message says in what."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EFBIG, what)


class Kind(Enum):
    """What an entry was when the directory was read. What is opened later is checked anew."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "symbolic link"
    SPECIAL = "special file"


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory; bytes that are not UTF-8 are surrogates in it (PEP 383)."""

    name: str
    kind: Kind


class Directory:
    """An open directory. A context manager; owns its descriptor. For one thread at a time."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def open(cls, path: Path | str, *, follow: bool = False) -> Self:
        """Open a directory by its path.

        Only the last part may be somebody else's: links before it are
        followed, one in its place only with `follow`. Raises OSError.
        """
        flags = _DIRECTORY & ~os.O_NOFOLLOW if follow else _DIRECTORY
        return cls(os.open(path, flags))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    def duplicate(self) -> "Directory":
        """Return the same directory with a descriptor of its own."""
        return Directory(os.open(".", _DIRECTORY, dir_fd=self.descriptor))

    def path(self) -> Path:
        """Return its path without links, of this moment: others may change where it leads."""
        return Path(os.readlink(f"/proc/self/fd/{self.descriptor}"))

    def about(self) -> os.stat_result:
        """Return what the system says of the directory itself."""
        return os.fstat(self.descriptor)

    # Looking

    def stat(self, name: str) -> os.stat_result:
        """Return what the system says of an entry; of a link, not of where it leads."""
        return os.stat(component(name), dir_fd=self.descriptor, follow_symlinks=False)

    def exists(self, name: str) -> bool:
        """Return whether there is an entry of this name, a link that leads nowhere included."""
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    def scan(self) -> Generator[Entry, None, None]:
        """Yield the entries in the system's order, one scan at a time. Close the iterator."""
        with os.scandir(self.descriptor) as scan:
            for found in scan:
                yield Entry(found.name, _kind(found))

    def entries(self, *, limit: int) -> list[Entry]:
        """Return the entries by name. Raises LimitReached if there are more than `limit`."""
        found: list[Entry] = []
        for entry in self.scan():
            if len(found) == limit:
                raise LimitReached(f"a directory has more than {limit} entries")
            found.append(entry)
        return sorted(found, key=lambda entry: os.fsencode(entry.name))

    # Opening

    def open_directory(self, name: str) -> "Directory":
        """Open a directory in it. Raises OSError: NotADirectoryError where anything else is."""
        return Directory(os.open(component(name), _DIRECTORY, dir_fd=self.descriptor))

    def open_file(self, name: str) -> BinaryIO:
        """Open a file to read. Raises NotARegularFile, OSError."""
        try:
            file = os.open(component(name), _READ, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno in _NO_FILE:
                raise NotARegularFile from None
            raise
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise NotARegularFile
            return os.fdopen(file, "rb")
        except BaseException:
            os.close(file)
            raise

    # Changing

    @contextmanager
    def create(self, name: str, mode: int = 0o666, *, durable: bool = False) -> Iterator[BinaryIO]:
        """Write a file that is there as a whole or not at all, in the place of what was there.

        It is written under a name that nobody can guess, and renamed at the
        end of the block; an error removes it. `mode` is subject to the umask.
        With `durable` a power cut does not undo it. Raises OSError.
        """
        component(name)
        fresh = unguessable()
        descriptor = os.open(fresh, _CREATE, mode, dir_fd=self.descriptor)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(descriptor)
            self.rename(fresh, self, name)
            if durable:
                os.fsync(self.descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(fresh, dir_fd=self.descriptor)
            raise

    def make_directory(
        self, name: str, mode: int = 0o777, *, exist_ok: bool = False
    ) -> "Directory":
        """Make a directory, and open it.

        Raises OSError: FileExistsError without `exist_ok`, NotADirectoryError
        where a link or a file is.
        """
        try:
            os.mkdir(component(name), mode, dir_fd=self.descriptor)
        except FileExistsError:
            if not exist_ok:
                raise
        return self.open_directory(name)

    def rename(self, name: str, target: "Directory", new: str) -> None:
        """Move an entry into `target` (rename(2)), in the place of a file that is there."""
        os.rename(
            component(name),
            component(new),
            src_dir_fd=self.descriptor,
            dst_dir_fd=target.descriptor,
        )

    def link(self, name: str, target: "Directory", new: str) -> None:
        """Link a file under a second name in `target`, replacing what is there."""
        fresh = unguessable()
        os.link(
            component(name),
            fresh,
            src_dir_fd=self.descriptor,
            dst_dir_fd=target.descriptor,
            follow_symlinks=False,
        )
        try:
            target.rename(fresh, target, new)
        finally:
            # rename(2) does nothing if both are names of the same file already.
            with suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=target.descriptor)

    def symlink(self, leads_to: str, name: str) -> None:
        """Make a symbolic link, in the place of a link or a file that is there."""
        fresh = unguessable()
        os.symlink(leads_to, fresh, dir_fd=self.descriptor)
        try:
            self.rename(fresh, self, name)
        except BaseException:
            with suppress(OSError):
                os.unlink(fresh, dir_fd=self.descriptor)
            raise

    def unlink(self, name: str) -> None:
        """Remove a file or a link. Raises OSError: IsADirectoryError where a directory is."""
        os.unlink(component(name), dir_fd=self.descriptor)

    def rmdir(self, name: str) -> None:
        """Remove an empty directory."""
        os.rmdir(component(name), dir_fd=self.descriptor)


def _kind(found: os.DirEntry[str]) -> Kind:
    if found.is_symlink():
        return Kind.LINK
    if found.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    return Kind.FILE if found.is_file(follow_symlinks=False) else Kind.SPECIAL
