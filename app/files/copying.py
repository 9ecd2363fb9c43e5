"""Copying files and trees so that it can be given up, and so that nobody can lead it astray."""

import errno
import os
import stat
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from app.files.directory import Directory, Kind, LimitReached, NotARegularFile
from app.files.names import printable
from app.files.walking import Limits, Position, Visit, walk

#: Bytes between two looks at whether anybody wants the copy.
_COPY: Final = 16 * 1024 * 1024
_BLOCK: Final = 1024 * 1024
#: What the system answers where it cannot copy by itself.
_NOT_BY_ITSELF: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
#: What it answers where a file cannot have a second name.
_NO_LINK: Final = (errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOENT)
#: Names of what was left out that a report has.
_NAMED: Final = 100
#: Never set: of a copy that nobody gives up.
_WANTED: Final = threading.Event()
#: Characters of all paths together that a report keeps of files that were written.
_PATHS: Final = 32 * 1024 * 1024


class Abandoned(Exception):
    """Nobody wants the result any more."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that was not copied."""

    #: Below the tree's root, as people can read it.
    path: str
    #: Such as `symbolic link`.
    what: str


@dataclass(slots=True)
class Report:
    """What a copied tree has, and what it lacks."""

    files: int = 0
    size_bytes: int = 0
    #: The first of them; there may be more.
    left_out: list[LeftOut] = field(default_factory=list)
    left_out_count: int = 0
    #: Device and number of files that were written, by their paths, where that was asked for;
    #: not of all in a tree whose paths are very long.
    written: dict[str, tuple[int, int]] = field(default_factory=dict)
    _paths_left: int = field(default_factory=lambda: _PATHS)

    def note(self, path: str, directory: Directory, name: str) -> None:
        """Note which file was written, unless it was left out."""
        if len(path) > self._paths_left:
            return
        with suppress(FileNotFoundError):
            about = directory.stat(name)
            if stat.S_ISREG(about.st_mode):
                self.written[path] = about.st_dev, about.st_ino
                self._paths_left -= len(path)

    def leave_out(self, path: str, what: str) -> None:
        """Note that something is left out."""
        self.left_out_count += 1
        if len(self.left_out) < _NAMED:
            self.left_out.append(LeftOut(printable(path), what))


@dataclass(frozen=True, slots=True)
class Twins:
    """Copies that were just made of a tree's files: one more copy can share them.

    Where a file system cannot clone files (copy_file_range(2)), it can give one
    file two names (link(2)). Such a file is read-only from then on, and it is
    taken only if it is still the very file that was written.
    """

    root: Directory
    #: Device and number of files, by their paths below the root; others are not shared.
    written: Mapping[str, tuple[int, int]]

    def link(self, path: str, target: Directory, name: str) -> bool:
        """Link the copy at `path` under another name; return whether it could. Raises OSError."""
        if (identity := self.written.get(path)) is None:
            return False
        if not _linked(self.root, path.split("/"), target, name):
            return False
        with target.open_file(name) as file:
            about = os.fstat(file.fileno())
            if (about.st_dev, about.st_ino) == identity:
                os.fchmod(file.fileno(), stat.S_IMODE(about.st_mode) & 0o555 | stat.S_IRUSR)
                return True
        # Somebody has put another file in its place meanwhile.
        target.unlink(name)
        return False


def copy_content(
    source: int, target: int, abandoned: threading.Event, *, limit: int = 1 << 62
) -> int:
    """Copy a file from one descriptor to another that is empty; returns its size.

    What the file had when it began is copied: what is added meanwhile is not.
    Where the file system can, the two share their blocks until one is written
    to (copy_file_range(2)). Holes stay holes. Raises LimitReached if it has
    more than `limit` bytes, Abandoned, OSError.
    """
    size = os.fstat(source).st_size
    if size > limit:
        raise LimitReached(f"it has more than {limit} bytes")
    offset = 0
    while offset < size:
        start, end = _data(source, offset, size)
        offset = _copy_range(source, target, start, end, abandoned)
        if offset < end:
            # It has become shorter.
            size = offset
    os.ftruncate(target, size)
    return size


def copy_part(source: int, target: int, offset: int, count: int) -> int:
    """Copy so many bytes at an offset of one file to the same of another; return how many.

    Raises LimitReached if the file ends before them, OSError.
    """
    end = _copy_range(source, target, offset, offset + count, _WANTED)
    if end < offset + count:
        raise LimitReached("it became shorter while it was copied")
    return count


def _data(file: int, offset: int, size: int) -> tuple[int, int]:
    """The next part of a file that is no hole, from `offset` on; empty at its end."""
    try:
        start = os.lseek(file, offset, os.SEEK_DATA)
        end = os.lseek(file, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        if error.errno == errno.EINVAL:
            return offset, size
        raise
    return min(start, size), min(end, size)


def _copy_range(source: int, target: int, start: int, end: int, abandoned: threading.Event) -> int:
    """Copy a part of a file; returns how far it came, less than `end` if the file ended there."""
    by_itself = True
    while start < end:
        if abandoned.is_set():
            raise Abandoned
        if by_itself:
            try:
                count = os.copy_file_range(source, target, min(_COPY, end - start), start, start)
            except OSError as error:
                if error.errno not in _NOT_BY_ITSELF:
                    raise
                by_itself = False
                continue
        else:
            block = os.pread(source, min(_BLOCK, end - start), start)
            count = len(block)
            _write(target, block, start)
        if not count:
            break
        start += count
    return start


def _write(target: int, block: bytes, offset: int) -> None:
    rest = memoryview(block)
    while rest:
        count = os.pwrite(target, rest, offset)
        offset += count
        rest = rest[count:]


def copy_open_file(
    source: int, target: Directory, name: str, abandoned: threading.Event, *, limit: int = 1 << 62
) -> int:
    """Copy an open file to `name` in `target`, there as a whole or not at all; returns its size.

    The copy has the file's permissions, and can be read and written by its
    owner. Raises LimitReached, Abandoned, OSError.
    """
    mode = stat.S_IMODE(os.fstat(source).st_mode) & 0o777 | stat.S_IRUSR | stat.S_IWUSR
    with target.create(name) as file:
        size = copy_content(source, file.fileno(), abandoned, limit=limit)
        os.fchmod(file.fileno(), mode)
    return size


def copy_tree(
    source: Directory,
    target: Directory,
    abandoned: threading.Event,
    *,
    limits: Limits,
    twins: Twins | None = None,
    note_written: bool = False,
) -> Report:
    """Copy the files and directories in `source` into `target`.

    Files replace those of their name one by one; directories are joined with
    those that are there. Links and special files are left out, and so is what
    becomes one meanwhile. A link in the place of a directory in `target` is an
    error. Files that are one file with two names stay so, and those that have
    `twins` share them. The report has what was written if `note_written` asks for
    it. Raises LimitReached, ChangedMeanwhile, Abandoned, OSError.
    """
    report = Report()
    #: Where the copy is of each file that has several names.
    copies: dict[tuple[int, int], tuple[str, ...]] = {}
    with Position(target) as position:
        for visit in walk(source, limits):
            if abandoned.is_set():
                raise Abandoned
            if visit.entry.kind is Kind.DIRECTORY:
                position.follow((*visit.parts, visit.entry.name))
                continue
            if visit.entry.kind is not Kind.FILE:
                report.leave_out(visit.path, visit.entry.kind.value)
                continue
            position.follow(visit.parts)
            _copy_file(visit, target, position.directory, copies, report, abandoned, limits, twins)
            if note_written:
                report.note(visit.path, position.directory, visit.entry.name)
    return report


def _copy_file(
    visit: Visit,
    root: Directory,
    target: Directory,
    copies: dict[tuple[int, int], tuple[str, ...]],
    report: Report,
    abandoned: threading.Event,
    limits: Limits,
    twins: Twins | None,
) -> None:
    name = visit.entry.name
    try:
        file = visit.directory.open_file(name)
    except NotARegularFile:
        report.leave_out(visit.path, "no file any more when it was opened")
        return
    except FileNotFoundError:
        report.leave_out(visit.path, "removed before it was opened")
        return
    with file:
        about = os.fstat(file.fileno())
        identity = about.st_dev, about.st_ino
        report.files += 1
        if identity in copies and _linked(root, copies[identity], target, name):
            return
        if twins is not None and twins.link(visit.path, target, name):
            report.size_bytes += about.st_size
            return
        report.size_bytes += copy_open_file(
            file.fileno(), target, name, abandoned, limit=limits.size_bytes - report.size_bytes
        )
        if about.st_nlink > 1:
            copies[identity] = (*visit.parts, name)


def _linked(root: Directory, parts: Iterable[str], target: Directory, name: str) -> bool:
    """Link the copy at `parts` below `root` under a second name; return whether it was possible."""
    *way, last = parts
    try:
        with Position(root) as position:
            for part in way:
                position.descend(part)
            position.directory.link(last, target, name)
    except NotADirectoryError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True
