"""Opening files below a folder and never outside of it, whatever symbolic links are there.

Like `openat2` with RESOLVE_BENEATH: a link is followed as long as it stays
below the folder. Every step is taken from a descriptor that is held, so links
that change meanwhile lead nowhere else. An absolute link always counts as
leading out.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

#: As many links as Linux follows.
_MAX_LINKS: Final = 40
_PLACE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class LeadsOut(Exception):
    """A path leads out of the folder."""


class Held:
    """A descriptor of a place in the file system, without right to read it; close it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __enter__(self) -> "Held":
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)

    def stat(self) -> os.stat_result:
        """What is there."""
        return os.fstat(self.descriptor)

    def path(self) -> Path:
        """Its path without links."""
        return Path(os.readlink(f"/proc/self/fd/{self.descriptor}"))

    def open(self) -> int:
        """A descriptor to read a regular file or a directory with. Raises OSError."""
        mode = self.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            # Opening a named pipe or a device may wait for ever, or do something.
            raise OSError(errno.EINVAL, "it is neither a file nor a directory")
        return os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def hold(root: Path, parts: Iterable[str]) -> Held:
    """The place that `parts` lead to, from `root` on. Raises LeadsOut, OSError."""
    held, missing = _walk(root, parts)
    if missing:
        held.close()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return held


def place(root: Path, parts: Iterable[str]) -> Path:
    """The path without links that `parts` lead to; the end of it may be missing.

    Raises LeadsOut, OSError.
    """
    held, missing = _walk(root, parts)
    with held:
        return held.path().joinpath(*missing)


def _walk(root: Path, parts: Iterable[str]) -> tuple[Held, list[str]]:
    """Go as far as there is something; returns where that is, and the parts that are missing."""
    pending = list(reversed(list(parts)))
    links = 0
    with ExitStack() as opened:
        way = [opened.enter_context(Held(os.open(root, os.O_PATH | os.O_CLOEXEC)))]
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(way) == 1:
                    raise LeadsOut
                way.pop()
                continue
            try:
                found = Held(os.open(name, _PLACE, dir_fd=way[-1].descriptor))
            except FileNotFoundError:
                rest = [name, *reversed(pending)]
                if ".." in rest:
                    raise
                return _kept(way[-1]), [part for part in rest if part not in ("", ".")]
            opened.enter_context(found)
            if not stat.S_ISLNK(found.stat().st_mode):
                way.append(found)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink("", dir_fd=found.descriptor)
            if target.startswith("/"):
                raise LeadsOut
            pending.extend(reversed(target.split("/")))
        return _kept(way[-1]), []


def _kept(held: Held) -> Held:
    return Held(os.dup(held.descriptor))
