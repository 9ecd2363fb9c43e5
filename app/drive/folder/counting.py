"""Counts what a tenant has on the disk: slowly, in bounded memory, whatever jobs do meanwhile.

The functions block, for threads, and raise OSError.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.drive.folder import staging, tree
from app.drive.folder.upload_files import declared_bytes, lacking_bytes
from app.files.copying import Abandoned
from app.files.directory import Directory, Kind, LimitReached

#: Entries between two pauses, and their length in seconds.
_BATCH: Final = 256
_PAUSE: Final = 0.002
#: Entries and folders that are looked at, at most; folders that wait to be.
_MOST: Final = 20_000_000
_MOST_WAITING: Final = 1_000_000
#: Files with several names that are known by them; each name of further ones counts.
_MOST_LINKED: Final = 100_000
#: What `stat` calls a block.
_BLOCK: Final = 512


def used_bytes(root: Path, tenant_id: str, abandoned: threading.Event) -> int:
    """Return what the tenant's files take, those of unfinished uploads at their full length.

    A file with several names counts once, at its full size, wherever its other
    names are. Uploads come first: one that is finished meanwhile counts twice,
    and not never. Raises Abandoned, and LimitReached if there are too many files.
    """
    count = _Count(abandoned)
    with staging.staging_of(root, tenant_id) as own:
        total = declared_bytes(own)
        for entry in own.scan():
            if entry.kind is Kind.DIRECTORY:
                total += count.tree(own, _Node(None, entry.name))
    try:
        with tree.tenant_folder(root, tenant_id) as top:
            total += count.tree(top, None)
    except FileNotFoundError:
        pass
    return total


@dataclass(frozen=True, slots=True)
class _Node:
    """A folder that waits: its name, and the folder that it is in. None is the top.

    Siblings share what is above them: a path for each would take as much as it is deep.
    """

    above: "_Node | None"
    name: str


def _way(node: _Node | None) -> tuple[str, ...]:
    names: list[str] = []
    while node is not None:
        names.append(node.name)
        node = node.above
    return tuple(reversed(names))


class _Count:
    """One count."""

    def __init__(self, abandoned: threading.Event) -> None:
        self._abandoned = abandoned
        self._looked_at = 0
        #: Of files with several names: how many are still to come, and what was counted.
        self._linked: dict[int, tuple[int, int]] = {}

    def tree(self, top: Directory, start: _Node | None) -> int:
        """Count a folder and all below it, however deep: one folder of it is open at a time."""
        total, waiting = 0, [start]
        while waiting:
            node = waiting.pop()
            way = _way(node)
            self._look(len(way) + 1)
            try:
                with tree.descend(top, way) as folder:
                    total += self._folder(folder, node, waiting)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # it has gone, or is nothing to be counted
        return total

    def _folder(self, folder: Directory, node: _Node | None, waiting: list[_Node | None]) -> int:
        total = 0
        for entry in folder.scan():
            self._look(1)
            if entry.kind is Kind.DIRECTORY:
                if len(waiting) >= _MOST_WAITING:
                    raise LimitReached("there are too many folders")
                waiting.append(_Node(node, entry.name))
            try:
                about = folder.stat(entry.name)
            except FileNotFoundError:
                continue
            total += self._size(about, several=entry.kind is not Kind.DIRECTORY)
        return total

    def _size(self, about: os.stat_result, *, several: bool) -> int:
        """Return what an entry takes beside what was counted; it may have `several` names."""
        size = about.st_blocks * _BLOCK
        if not several or about.st_nlink <= 1:
            return size
        identity = about.st_dev << 64 | about.st_ino
        known = self._linked.pop(identity, None)
        left, counted = (about.st_nlink, 0) if known is None else known
        if left > 1 and len(self._linked) < _MOST_LINKED:
            # What is larger at its next name has grown, or has the number of one that has gone.
            self._linked[identity] = left - 1, max(size, counted)
        return max(0, size - counted)

    def _look(self, count: int) -> None:
        before, self._looked_at = self._looked_at, self._looked_at + count
        if self._looked_at > _MOST:
            raise LimitReached("there are too many files")
        if before // _BATCH != self._looked_at // _BATCH and self._abandoned.wait(_PAUSE):
            raise Abandoned


def awaited_bytes(root: Path, tenant_id: str) -> int:
    """Return what the tenant's unfinished uploads still lack of their lengths."""
    with staging.staging_of(root, tenant_id) as own:
        return lacking_bytes(own)


def free_bytes(folder: Path) -> int:
    """Return what the disk of a folder has left for programs."""
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize


def own_disk(root: Path, tenant_id: str) -> Path | None:
    """Return the tenant's folder if it is on a disk of its own: a mount, or the operators' link
    to one. Files are staged on the drive's disk, and copied there at their end."""
    folder = root / tenant_id
    try:
        return folder if folder.stat().st_dev != root.stat().st_dev else None
    except FileNotFoundError:
        return None
