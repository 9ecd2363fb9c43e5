"""Opening what a path leads to below a folder and never outside of it, whatever links are there.

Like `openat2` with RESOLVE_BENEATH: a link is followed as long as it stays
below the folder. Every step is taken from a descriptor that is held, so links
that change meanwhile lead nowhere else. An absolute link always counts as
leading out.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from app.files.directory import Directory, NotARegularFile

#: As many links as Linux follows.
_MAX_LINKS: Final = 40
_PLACE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class LeadsOut(Exception):
    """A path leads out of the folder, or of a closed directory in it."""


#: Whether the directory that names lead to from the folder is closed: what was entered there is
#: not left again by a link. Whoever writes in it decides nothing about what is beside it.
Closed = Callable[[Sequence[str]], bool]


def _nothing_is_closed(_: Sequence[str]) -> bool:
    return False


class OpenedPath:
    """A descriptor of a place in the file system, without right to read it. A context manager."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

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

    def stat(self) -> os.stat_result:
        """Return what the system says of what is there."""
        return os.fstat(self.descriptor)

    def path(self) -> Path:
        """Return its path without links, of this moment: others may change where it leads."""
        return Path(os.readlink(f"/proc/self/fd/{self.descriptor}"))

    def open_file(self) -> BinaryIO:
        """Open the regular file that is there to read. Raises NotARegularFile, OSError."""
        if not stat.S_ISREG(self.stat().st_mode):
            # Opening a named pipe or a device may wait for ever, or do something.
            raise NotARegularFile
        return os.fdopen(self._reopened(0), "rb")

    def open_directory(self) -> Directory:
        """Open the directory that is there. Raises OSError: NotADirectoryError for others."""
        return Directory(self._reopened(os.O_DIRECTORY))

    def _reopened(self, flags: int) -> int:
        return os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC | flags)


def open_beneath(
    root: Path, parts: Iterable[str], *, closed: Closed = _nothing_is_closed
) -> OpenedPath:
    """Open the place that `parts` lead to, from `root` on. Raises LeadsOut, OSError."""
    opened, missing = reach_beneath(root, parts, closed=closed)
    if missing:
        opened.close()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return opened


def reach_beneath(
    root: Path, parts: Iterable[str], *, closed: Closed = _nothing_is_closed
) -> tuple[OpenedPath, list[str]]:
    """Open the last place on the way that is there; returns it with the parts that are missing.

    Raises LeadsOut, OSError: where parts are missing below something else than
    a directory, too.
    """
    pending = list(reversed(list(parts)))
    links = 0
    with ExitStack() as opened:
        way = [opened.enter_context(OpenedPath(os.open(root, os.O_PATH | os.O_CLOEXEC)))]
        names: list[str] = []
        #: How many names of the way cannot be left again.
        kept = 0
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(names) == kept:
                    raise LeadsOut
                way.pop()
                names.pop()
                continue
            try:
                found = OpenedPath(os.open(name, _PLACE, dir_fd=way[-1].descriptor))
            except FileNotFoundError:
                rest = [name, *reversed(pending)]
                if ".." in rest:
                    raise
                return _kept(way[-1]), [part for part in rest if part not in ("", ".")]
            opened.enter_context(found)
            if not stat.S_ISLNK(found.stat().st_mode):
                way.append(found)
                names.append(name)
                if not kept and closed(names):
                    kept = len(names)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink("", dir_fd=found.descriptor)
            if target.startswith("/"):
                raise LeadsOut
            pending.extend(reversed(target.split("/")))
        return _kept(way[-1]), []


def _kept(opened: OpenedPath) -> OpenedPath:
    return OpenedPath(os.dup(opened.descriptor))
