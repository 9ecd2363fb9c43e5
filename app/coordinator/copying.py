"""Copying files so that they are there as a whole or not at all, and so that it can be given up."""

import errno
import os
import stat
import threading
from pathlib import Path
from typing import IO, Final

#: Bytes between two looks at whether anybody wants the copy.
_COPY: Final = 16 * 1024 * 1024
_BLOCK: Final = 1024 * 1024
#: What the system answers where it cannot copy by itself.
_NOT_BY_ITSELF: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Abandoned(Exception):
    """Nobody wants the result any more."""


def copy_content(source: int, target: int, abandoned: threading.Event) -> int:
    """Copy from one descriptor to another; returns how many bytes.

    Where the file system can, the two share their blocks until one is
    written to (copy_file_range(2)). Raises Abandoned, OSError.
    """
    total = 0
    while True:
        if abandoned.is_set():
            raise Abandoned
        try:
            count = os.copy_file_range(source, target, _COPY)
        except OSError as error:
            if error.errno not in _NOT_BY_ITSELF:
                raise
            return total + _read_and_write(source, target, abandoned)
        if not count:
            return total
        total += count


def _read_and_write(source: int, target: int, abandoned: threading.Event) -> int:
    total = 0
    while block := os.read(source, _BLOCK):
        if abandoned.is_set():
            raise Abandoned
        written = memoryview(block)
        while written:
            written = written[os.write(target, written) :]
        total += len(block)
    return total


def copy_open_file(source: IO[bytes], target: Path, abandoned: threading.Event) -> None:
    """Copy a file that is open, so that `target` is there as a whole or not at all.

    Raises Abandoned, OSError.
    """
    fresh = target.with_name(f".{target.name}.partial")
    mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode) | stat.S_IRUSR | stat.S_IWUSR
    try:
        with open(fresh, "wb") as writer:
            copy_content(source.fileno(), writer.fileno(), abandoned)
        fresh.chmod(mode)
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def copy_file(source: Path, target: Path, abandoned: threading.Event) -> None:
    """Copy a file so that `target` is there as a whole or not at all. Raises Abandoned, OSError."""
    with open(source, "rb") as reader:
        copy_open_file(reader, target, abandoned)


def copy_tree(source: Path, target: Path, abandoned: threading.Event) -> None:
    """Copy files and directories into `target`; symbolic links are left out, and are not
    followed at the target: they may lead anywhere. Raises Abandoned, OSError."""
    if target.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, f"{target.name} is a symbolic link")
    target.mkdir(exist_ok=True)
    for entry in os.scandir(source):
        if entry.is_dir(follow_symlinks=False):
            copy_tree(Path(entry.path), target / entry.name, abandoned)
        elif entry.is_file(follow_symlinks=False):
            copy_file(Path(entry.path), target / entry.name, abandoned)
