"""Second names of a checkpoint's files: whatever its job removes meanwhile, they stay."""

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from app.files.directory import Directory, Kind
from app.files.removing import remove_tree
from app.files.walking import ChangedMeanwhile, Limits, Position, walk
from app.objects.published import seen_files

#: What the system answers where a file cannot have a second name.
_NO_LINK: Final = (errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP)


@contextmanager
def held(source: Directory, name: str, place: Path, limits: Limits) -> Iterator[Directory]:
    """Have a directory that has the file or directory `name` of `source` as it is now, as long as
    the context lives; `place` is where, and nothing else is kept there. Where files can have no
    second names, it is `source`.

    What is neither a file nor a directory is left out. Raises FileNotFoundError and
    ChangedMeanwhile if it is removed just then, LimitReached, OSError.
    """
    with Directory.open(place.parent, follow=True) as around:
        remove_tree(around, place.name)
        # Only its job may read it.
        with around.make_directory(place.name, 0o700) as target:
            try:
                yield target if _linked(source, name, target, limits) else source
            finally:
                # What cannot be removed now is removed before the next one is held.
                with suppress(OSError):
                    remove_tree(around, place.name)


def _linked(source: Directory, name: str, target: Directory, limits: Limits) -> bool:
    try:
        _link(source, name, target, limits)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _link(source: Directory, name: str, target: Directory, limits: Limits) -> None:
    if not stat.S_ISDIR(source.stat(name).st_mode):
        source.link(name, target, name)
        return
    with (
        source.open_directory(name) as tree,
        target.make_directory(name) as copy,
        Position(copy) as position,
    ):
        for visit in walk(tree, limits):
            if visit.entry.kind is Kind.FILE:
                position.follow(visit.parts)
                visit.directory.link(visit.entry.name, position.directory, visit.entry.name)
        # Removed by a script, file by file, or set aside as one of too many.
        if seen_files(copy, limits) != seen_files(tree, limits) or not source.exists(name):
            raise ChangedMeanwhile
