"""What files take on a disk that no directory shows: a single one, and those without a name."""

import os
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

#: Descriptors of a run that are looked at.
MOST_DESCRIPTORS: Final = 1_000_000
_BLOCK: Final = 512


class TooManyFiles(Exception):
    """A run has more descriptors than are looked at."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


def file_bytes(path: str) -> int:
    """What a regular file takes; 0 for anything else in its place."""
    with suppress(OSError):
        about = os.lstat(path)
        if stat.S_ISREG(about.st_mode):
            return about.st_blocks * _BLOCK
    return 0


def devices_of(paths: Iterable[str]) -> frozenset[int]:
    """The devices that files at these places are on."""
    found = set()
    for path in paths:
        with suppress(OSError):
            found.add(os.lstat(path).st_dev)
    return frozenset(found)


def unlinked_bytes(
    pids: Iterable[int], devices: Collection[int], *, most: int = MOST_DESCRIPTORS
) -> int:
    """What files on these devices take that processes have open and that have no name any more,
    each counted once.

    One that is only mapped, or on its way through a socket, is not seen.
    Raises TooManyFiles.
    """
    found: dict[tuple[int, int], int] = {}
    left = most
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as files:
            for file in files:
                left -= 1
                if left < 0:
                    raise TooManyFiles(most)
                with suppress(OSError):
                    about = os.stat(file.path)
                    if (
                        about.st_nlink == 0
                        and about.st_dev in devices
                        and stat.S_ISREG(about.st_mode)
                    ):
                        found[about.st_dev, about.st_ino] = about.st_blocks * _BLOCK
    return sum(found.values())
