"""Directories that are there as a whole or not at all."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from app.files.directory import Directory
from app.files.names import component, unguessable
from app.files.removing import remove_tree

_TAKEN: Final = (errno.ENOTEMPTY, errno.EEXIST)


@contextmanager
def staged_directory(parent: Directory, name: str, *, label: str) -> Iterator[Directory]:
    """Fill a new directory beside its place, and rename it to `name` at the end of the block.

    An error removes it. `label` tells whose it is: what a crash left of the
    same label goes first, so no two at a time may have the same. Raises
    FileExistsError if `name` was taken meanwhile, and OSError.
    """
    component(name)
    clear_staged(parent, label=label)
    fresh = unguessable(label)
    try:
        with parent.make_directory(fresh) as directory:
            yield directory
        try:
            parent.rename(fresh, parent, name)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            raise FileExistsError(errno.EEXIST, "it is there already") from None
    except BaseException:
        with suppress(OSError):
            remove_tree(parent, fresh)
        raise


def clear_staged(parent: Directory, *, label: str) -> None:
    """Remove what staged directories of this label a crash left in `parent`. Raises OSError."""
    left = [
        entry.name
        for entry in parent.scan()
        if entry.name.startswith(".") and entry.name.endswith(f".{label}.partial")
    ]
    for name in left:
        remove_tree(parent, name)
