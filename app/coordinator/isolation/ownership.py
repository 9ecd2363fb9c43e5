"""Hands a job's directories to the job's user id, and opens to it what it reads.

Done by the runner, as root, while nothing of the job runs. No link is followed.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.files.directory import Directory, Kind
from app.files.walking import Limits, walk

_EVERYTHING: Final = Limits(depth=1_000_000, entries=50_000_000)
_FOR_OTHERS: Final = stat.S_IROTH
_ALSO_FOR_OTHERS: Final = stat.S_IROTH | stat.S_IXOTH


def give_to_job(paths: Iterable[str], uid: int) -> None:
    """Make `uid` the owner of files and directories, with all that is in them. Raises OSError."""
    for path in paths:
        # What it is in is not the job's: it is no link that leads elsewhere.
        os.lchown(path, uid, uid)
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            continue
        with Directory.open(path) as root:
            for visit in walk(root, _EVERYTHING):
                if visit.entry.kind is Kind.DIRECTORY:
                    os.fchown(visit.directory.descriptor, uid, uid)
                else:
                    with suppress(FileNotFoundError):
                        os.chown(
                            visit.entry.name,
                            uid,
                            uid,
                            dir_fd=visit.directory.descriptor,
                            follow_symlinks=False,
                        )


def open_to_job(paths: Iterable[str], *, reached: Iterable[str], roots: Iterable[str]) -> None:
    """Let every user read files and directories, with all that is in them, and pass the
    directories below `roots` on the way to them, and to those that are to be `reached`.

    Who is on the machine beside is kept out by the roots' own modes. What is
    not below a root is left as it is: its owner decides. Raises OSError.
    """
    own = [Path(root) for root in roots]
    opened = list(paths)
    for path in map(Path, [*opened, *reached]):
        for parent in path.parents:
            if any(parent.is_relative_to(root) for root in own):
                _add_rights(parent, stat.S_IXOTH)
    for path in map(Path, opened):
        if not any(path.is_relative_to(root) for root in own):
            continue
        if not path.is_dir():
            _add_rights(path, _FOR_OTHERS)
            continue
        _add_rights(path, _ALSO_FOR_OTHERS)
        with Directory.open(path) as root:
            for visit in walk(root, _EVERYTHING):
                if visit.entry.kind is Kind.DIRECTORY:
                    _add(visit.directory.descriptor, _ALSO_FOR_OTHERS)
                elif visit.entry.kind is Kind.FILE:
                    with suppress(OSError), visit.directory.open_file(visit.entry.name) as file:
                        _add(file.fileno(), _FOR_OTHERS)


def _add_rights(path: Path, rights: int) -> None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # A link, or gone: the job finds that by itself.
        return
    try:
        _add(file, rights)
    finally:
        os.close(file)


def _add(file: int, rights: int) -> None:
    mode = stat.S_IMODE(os.fstat(file).st_mode)
    if mode & stat.S_IXUSR:
        rights |= stat.S_IXOTH
    if mode & rights != rights:
        os.fchmod(file, mode | rights)
