"""Removing trees of any depth, also while somebody goes on changing them."""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

from app.files.copying import Abandoned
from app.files.directory import Directory, Entry, Kind, LimitReached
from app.files.names import component, unguessable

#: Entries that are looked at together.
_BATCH: Final = 1024
#: Entries to remove before it is given up: somebody makes them faster than they go.
_MOST: Final = 20_000_000
#: How often an empty directory may turn out not to be empty.
_PATIENCE: Final = 1000
_PLACE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_BUSY: Final = (errno.ENOTEMPTY, errno.EEXIST)


#: Never set: of a removal that nobody gives up.
_WANTED: Final = threading.Event()


def remove_tree(parent: Directory, name: str, abandoned: threading.Event = _WANTED) -> None:
    """Remove what is at `name` with all that is in it; nothing happens if it is not there.

    A link is removed, not followed. Two levels of the tree are open at a time:
    directories further down are moved up under names that nobody can guess,
    within the tree, so that what a crash leaves goes with the next removal.
    Raises Abandoned, soon after `abandoned` is set: the next removal goes on
    then. Raises LimitReached if somebody makes new entries faster than they go, and
    OSError.
    """
    if _unlinked(parent, name):
        return
    left = _MOST
    with suppress(FileNotFoundError), _opened(parent, name) as top:
        for _ in range(_PATIENCE):
            while batch := list(_some(top)):
                left -= len(batch)
                for entry in batch:
                    if abandoned.is_set():
                        raise Abandoned
                    if entry.kind is Kind.DIRECTORY:
                        left -= _empty(top, entry.name, abandoned)
                    else:
                        _unlinked(top, entry.name)
                if left < 0:
                    raise LimitReached("it is filled faster than it can be removed")
            try:
                parent.rmdir(name)
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
            else:
                return
        raise LimitReached("it is filled faster than it can be removed")


def _empty(top: Directory, name: str, abandoned: threading.Event) -> int:
    """Empty a directory in `top`, and remove it; returns how many entries it had.

    Directories in it that are not empty move up to `top`. Raises Abandoned, OSError.
    """
    count = 0
    with suppress(FileNotFoundError, NotADirectoryError):
        with _opened(top, name) as directory:
            while batch := list(_some(directory)):
                count += len(batch)
                for entry in batch:
                    if abandoned.is_set():
                        raise Abandoned
                    if not _unlinked(directory, entry.name):
                        _remove_or_move(directory, entry.name, top)
                if count > _MOST:
                    break
        try:
            top.rmdir(name)
        except OSError as error:
            # Somebody has put something into it: it is for the next look.
            if error.errno not in _BUSY:
                raise
    return count


def _remove_or_move(directory: Directory, name: str, top: Directory) -> None:
    try:
        directory.rmdir(name)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in _BUSY:
            raise
        with suppress(FileNotFoundError):
            try:
                directory.rename(name, top, unguessable())
            except PermissionError:
                # Its `..` is written to: its owner may have closed it.
                _opened(directory, name).close()
                directory.rename(name, top, unguessable())


def _unlinked(parent: Directory, name: str) -> bool:
    """Remove anything but a directory; whether nothing is there any more."""
    try:
        parent.unlink(name)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        try:
            is_directory = stat.S_ISDIR(parent.stat(name).st_mode)
        except FileNotFoundError:
            return True
        if not is_directory:
            raise
        return False
    return True


def _opened(parent: Directory, name: str) -> Directory:
    """Open a directory that its owner may have closed to itself."""
    try:
        about = parent.stat(name)
        if about.st_mode & stat.S_IRWXU == stat.S_IRWXU:
            return parent.open_directory(name)
    except PermissionError:
        pass
    place = os.open(component(name), _PLACE, dir_fd=parent.descriptor)
    try:
        # The mode of exactly what was opened: fchmod(2) refuses a mere place.
        os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)
        return Directory(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place))
    finally:
        os.close(place)


def _some(directory: Directory) -> Iterator[Entry]:
    return islice(directory.scan(), _BATCH)
