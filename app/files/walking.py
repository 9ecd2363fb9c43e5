"""Walking a tree that may change meanwhile: no recursion, few descriptors, and bounds.

However deep a tree is, one directory of it is open at a time. The way up is
the directory's own `..`, and it is taken only if that is the directory that
the way down came from: a tree whose directories are moved away meanwhile leads
nowhere else.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from app.files.directory import Directory, Entry, Kind, LimitReached

_UP: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ChangedMeanwhile(OSError):
    """A directory was moved away while the tree that it belonged to was walked."""

    def __init__(self) -> None:
        super().__init__(errno.ESTALE, "it was changed while it was read")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tree may be at most."""

    #: Directories below each other.
    depth: int = 64
    #: Entries of all kinds.
    entries: int = 250_000
    #: Sum of the files' sizes as they are told: holes count.
    size_bytes: int = 1 << 62


class Position:
    """A place in a tree, with the way back to where it began. A context manager.

    `root` stays the caller's, and has to stay open.
    """

    def __init__(self, root: Directory) -> None:
        self._root = root
        self._below: Directory | None = None
        #: Names and identities of the directories on the way.
        self._way: list[tuple[str, tuple[int, int]]] = []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close what it holds."""
        self._hold(None)

    @property
    def directory(self) -> Directory:
        """The directory that it is at; valid until it moves."""
        return self._below or self._root

    @property
    def parts(self) -> tuple[str, ...]:
        """The names on the way from the root."""
        return tuple(name for name, _ in self._way)

    @property
    def depth(self) -> int:
        """How many directories it is below the root."""
        return len(self._way)

    def descend(self, name: str, *, make: bool = False) -> None:
        """Go into a directory; with `make`, make it if it is not there. Raises OSError."""
        here = self.directory
        identity = _identity(here)
        below = here.make_directory(name, exist_ok=True) if make else here.open_directory(name)
        self._way.append((name, identity))
        self._hold(below)

    def ascend(self) -> None:
        """Go back to the directory above. Raises ChangedMeanwhile if it is another one now."""
        _, identity = self._way.pop()
        if not self._way:
            self._hold(None)
            return
        above = Directory(os.open("..", _UP, dir_fd=self.directory.descriptor))
        self._hold(above)
        if _identity(above) != identity:
            raise ChangedMeanwhile

    def follow(self, parts: tuple[str, ...]) -> None:
        """Go to where `parts` lead from the root, making the directories that are missing.

        Raises ChangedMeanwhile, OSError.
        """
        here = self.parts
        shared = 0
        while shared < min(len(here), len(parts)) and here[shared] == parts[shared]:
            shared += 1
        while self.depth > shared:
            self.ascend()
        for name in parts[shared:]:
            self.descend(name, make=True)

    def _hold(self, below: Directory | None) -> None:
        if self._below is not None:
            self._below.close()
        self._below = below


@dataclass(frozen=True, slots=True)
class Visit:
    """An entry of a tree, while it is its turn."""

    #: The directory that it is in; of a directory, itself. Valid until the next visit.
    directory: Directory
    #: The names of the directories on the way to it.
    parts: tuple[str, ...]
    entry: Entry

    @property
    def path(self) -> str:
        """Its path below the root of the tree."""
        return "/".join((*self.parts, self.entry.name))


def walk(root: Directory, limits: Limits) -> Iterator[Visit]:
    """Yield what is below `root`, each directory before what is in it, by name.

    Links are not followed. What is no directory any more when it is opened is
    told as a special file. Sizes are those of the moment; whoever reads on bounds what it
    reads. Raises LimitReached, ChangedMeanwhile, OSError. Close the iterator.
    """
    left = limits.entries
    size_left = limits.size_bytes

    def listed(directory: Directory) -> list[Entry]:
        nonlocal left
        try:
            found = directory.entries(limit=left)
        except LimitReached:
            raise LimitReached(f"there are more than {limits.entries} files") from None
        left -= len(found)
        found.reverse()
        return found

    with Position(root) as position:
        pending = [listed(root)]
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    position.ascend()
                continue
            entry = pending[-1].pop()
            if entry.kind is Kind.FILE:
                with suppress(FileNotFoundError):
                    size_left -= position.directory.stat(entry.name).st_size
                if size_left < 0:
                    raise LimitReached(f"the files have more than {limits.size_bytes} bytes")
            parts = position.parts
            if entry.kind is Kind.DIRECTORY:
                if position.depth == limits.depth:
                    raise LimitReached(f"there are directories more than {limits.depth} deep")
                try:
                    position.descend(entry.name)
                except FileNotFoundError:
                    continue
                except NotADirectoryError:
                    entry = Entry(entry.name, Kind.SPECIAL)
                else:
                    pending.append(listed(position.directory))
            yield Visit(position.directory, parts, entry)


def tree_size(root: Directory, limits: Limits) -> int:
    """Return the sum of the sizes of the files below `root`; those with two names count twice.

    Raises LimitReached, ChangedMeanwhile, OSError.
    """
    total = 0
    for visit in walk(root, limits):
        if visit.entry.kind is Kind.FILE:
            with suppress(FileNotFoundError):
                total += visit.directory.stat(visit.entry.name).st_size
    return total


def _identity(directory: Directory) -> tuple[int, int]:
    about = directory.about()
    return about.st_dev, about.st_ino
