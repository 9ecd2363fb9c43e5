"""What a run has written below directories that it may change."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from app.files.directory import Directory, Kind
from app.files.walking import Position

#: Directories in one directory whose names are remembered.
MOST_DIRECTORIES: Final = 200_000
_BLOCK: Final = 512


@dataclass(slots=True)
class DiskUse:
    """What there is, as far as it was seen."""

    size_bytes: int = 0
    #: Entries of all kinds.
    files: int = 0


def disk_use(paths: Iterable[str], *, most_bytes: int, most_files: int) -> DiskUse:
    """Count what is below some directories; a file with several names counts once.

    Stops as soon as there is more than one of the bounds. A part that is
    moved away meanwhile, or cannot be read, is counted as far as it was seen.
    """
    counter = _Counter(most_bytes, most_files)
    for path in paths:
        with suppress(OSError), Directory.open(path) as root:
            counter.add(root)
    return counter.use


def freed_use(roots: Iterable[Directory], *, most_files: int) -> DiskUse:
    """Count what would be free if some directories were removed: not what also has a name
    elsewhere. Otherwise as `disk_use`."""
    counter = _Counter(2**63, most_files, freed=True)
    for root in roots:
        with suppress(OSError):
            counter.add(root)
    return counter.use


class _Counter:
    def __init__(self, most_bytes: int, most_files: int, *, freed: bool = False) -> None:
        self.use = DiskUse()
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._freed = freed
        #: How many names of a file with several were seen, by device and number.
        self._seen: Counter[tuple[int, int]] = Counter()

    def add(self, root: Directory) -> None:
        """Count what is below a directory. Raises OSError where it changes meanwhile."""
        with Position(root) as position:
            pending = [self._look(root)]
            while pending and not self._enough:
                if not pending[-1]:
                    pending.pop()
                    if pending:
                        position.ascend()
                    continue
                try:
                    position.descend(pending[-1].pop())
                except OSError:
                    continue
                pending.append(self._look(position.directory))

    @property
    def _enough(self) -> bool:
        return self.use.size_bytes > self._most_bytes or self.use.files > self._most_files

    def _look(self, directory: Directory) -> list[str]:
        """Count a directory's entries; the names of those that are directories."""
        below: list[str] = []
        for entry in directory.scan():
            self.use.files += 1
            if entry.kind is Kind.DIRECTORY and len(below) < MOST_DIRECTORIES:
                below.append(entry.name)
            with suppress(OSError):
                about = directory.stat(entry.name)
                identity = about.st_dev, about.st_ino
                if about.st_nlink == 1 or entry.kind is Kind.DIRECTORY:
                    self.use.size_bytes += about.st_blocks * _BLOCK
                else:
                    self._seen[identity] += 1
                    if self._seen[identity] == (about.st_nlink if self._freed else 1):
                        self.use.size_bytes += about.st_blocks * _BLOCK
            if self._enough:
                break
        return below
