"""Trees in an object store that are there as a whole or not at all: content first, mark last.

    <prefix><name>                  the tree that is one file
    <prefix><name>/...              the files of any other
    <prefix>.complete/<name>        its mark: which objects belong to it, in JSON
    <prefix>.parts/<part>/...       the same, of a part of trees that several wrote

A store renames nothing. So a tree counts while its mark is there and the
objects are those that it names; whoever writes dies at any moment, and leaves
no half tree that counts. One that is written anew loses its mark first. Of a
tree that several wrote, each has written its part, and the mark names the part
of each file.
"""

import os
import re
import stat
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

from app.files.copying import Report
from app.files.directory import Directory, Kind, LimitReached
from app.files.walking import ChangedMeanwhile, Limits, walk
from app.objects.store import ChangedObject, ObjectStore, StoredObject
from app.objects.trees import (
    Member,
    fetch_file,
    fetch_members,
    is_name,
    members,
    remove_others,
    upload_tree,
)

#: The folder of the marks.
COMPLETE: Final = ".complete"
#: The folder of the parts of trees that several wrote.
PARTS: Final = ".parts"
#: Bytes of a mark: it has a line for each file.
MAX_MARK: Final = 256 * 1024 * 1024
#: Marks of one prefix that are looked at.
_MOST: Final = 50_000
#: A part, as a mark names it: the run that wrote it, and where that run has it.
_PART: Final = re.compile(r"[0-9]{1,10}/[0-9]{1,10}(-[0-9]{1,10})?")
#: A file of a tree, as a mark has it: its path, size, version, and its part if it is in one.
MarkedFile: TypeAlias = tuple[str, int, str] | tuple[str, int, str, str]


@dataclass(frozen=True, slots=True)
class Published:
    """A tree that is there."""

    name: str
    #: Another one when the tree is written anew.
    version: str
    #: When its mark was written, in microseconds since 1970.
    published_at: int


class PublishedTrees:
    """Those below one prefix. Blocks: call it in a thread. One process writes a tree at a time.

    Every call raises as those of the store.
    """

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        """`prefix` ends with a slash."""
        self._store = store
        self.prefix = prefix

    def names(self) -> list[Published]:
        """Return the trees that are there, by name. Raises LimitReached if there are very many."""
        marks = self._store.listing(self._mark(""), limit=_MOST).objects
        return [
            Published(mark.key.removeprefix(self._mark("")), mark.etag, mark.modified)
            for mark in marks
        ]

    def members(self, name: str, *, limit: int = MAX_MARK) -> list[Member]:
        """Return the objects of a tree. Raises FileNotFoundError; ValueError for a mark that
        nobody here has written; LimitReached for one of more than `limit` bytes."""
        mark = self._read(name, limit)
        return [
            Member(path, StoredObject(self._object(name, path, *part), size, etag, 0))
            for path, size, etag, *part in mark["files"]
        ]

    def size(self, name: str) -> int:
        """Return the bytes of a tree's files. Raises FileNotFoundError, ValueError."""
        return sum(member.stored.size for member in self.members(name))

    def publish(
        self, source: Directory, name: str, abandoned: threading.Event, *, limits: Limits
    ) -> Report:
        """Bring the file or directory `name` in `source` to the store, in the place of a tree of
        that name. Returns what was left out.

        Raises NotARegularFile for anything else, LimitReached, ChangedMeanwhile,
        ChangedObject if it is written to meanwhile, Abandoned, OSError.
        """
        self._store.remove([self._mark(name)])
        found, report = upload_whole(
            self._store, source, name, self.prefix, abandoned, limits=limits
        )
        self._write_mark(name, found)
        return report

    def mark(self, name: str) -> None:
        """Have a tree count of which all objects have been written."""
        self._write_mark(name, members(self._store, self._folder(name), Limits()))

    def mark_parts(self, name: str, files: Sequence[MarkedFile]) -> None:
        """Have a tree count whose files are in parts, in the place of the one that counted."""
        former = self._marked(name)
        self._store.write(self._mark(name), orjson.dumps({"files": files}))
        named = {self._object(name, path, *part) for path, _, _, *part in files}
        gone = [self._object(name, path, *part) for path, _, _, *part in former]
        self._store.remove([key for key in gone if key not in named])

    def is_marked(self, name: str, files: Sequence[MarkedFile]) -> bool:
        """Whether a tree that counts has these files."""
        return sorted(self._marked(name)) == sorted(map(list, files))

    def _marked(self, name: str) -> list[list[Any]]:
        try:
            found: list[list[Any]] = self._read(name)["files"]
        except (FileNotFoundError, LimitReached, ValueError):
            return []
        return found

    def _write_mark(self, name: str, found: Sequence[Member]) -> None:
        files = [(each.path, each.stored.size, each.stored.etag) for each in found]
        self._store.write(self._mark(name), orjson.dumps({"files": files}))

    def fetch(self, name: str, target: Directory, as_name: str, abandoned: threading.Event) -> None:
        """Fetch a tree as `as_name` in a directory, where nothing of that name is.

        Raises FileNotFoundError if it is not there, ChangedObject if it is
        another one by now, ValueError, Abandoned, OSError.
        """
        found = self.members(name)
        try:
            if [each.path for each in found] == [""]:
                fetch_file(self._store, found[0].stored, target, as_name, abandoned)
                return
            with target.make_directory(as_name) as directory:
                fetch_members(self._store, found, directory, abandoned)
        except FileNotFoundError:
            raise ChangedObject from None

    def remove(self, name: str) -> None:
        """Remove a tree, its mark first."""
        try:
            named = [each.stored.key for each in self.members(name)]
        except (FileNotFoundError, LimitReached, ValueError):
            named = []
        self._store.remove([self._mark(name)])
        self._store.remove([self._object(name, "")])
        self._store.remove(each.key for each in self._store.objects(self._folder(name)))
        self._store.remove(named)

    def used(self) -> int:
        """Return the bytes of all objects below the prefix, whether they count or not."""
        return sum(each.size for each in self._store.objects(self.prefix))

    def remove_all(self) -> None:
        """Remove all that is below the prefix, the marks first."""
        for prefix in (self._mark(""), self.prefix):
            self._store.remove(each.key for each in self._store.objects(prefix))

    def _read(self, name: str, limit: int = MAX_MARK) -> dict[str, Any]:
        """Read a mark. Anybody with the bucket's credentials may have written it."""
        mark = orjson.loads(self._store.read(self._mark(name), limit=limit))
        files = mark.get("files") if isinstance(mark, dict) else None
        if not isinstance(files, list) or not all(map(is_file, files)):
            raise ValueError("it is no mark of a tree")
        return {"files": files}

    def _mark(self, name: str) -> str:
        return f"{self.prefix}{COMPLETE}/{name}"

    def _folder(self, name: str) -> str:
        return f"{self.prefix}{name}/"

    def _object(self, name: str, path: str, part: str = "") -> str:
        """Return the key of a tree's file, in a part or not; without a path, of the tree that is
        one file."""
        prefix = f"{self.prefix}{PARTS}/{part}/" if part else self.prefix
        return f"{prefix}{name}/{path}" if path else prefix + name


def upload_whole(
    store: ObjectStore,
    source: Directory,
    name: str,
    prefix: str,
    abandoned: threading.Event,
    *,
    limits: Limits,
    skipped: Collection[str] = (),
) -> tuple[list[Member], Report]:
    """Write the file or directory `name` in `source` below a prefix that ends with a slash, in the
    place of what it has of that name. Returns what is there then, and what was left out.

    It was the same from the beginning to the end. Raises as `PublishedTrees.publish`.
    """
    identity = _identity(source, name)
    if stat.S_ISDIR(source.stat(name).st_mode):
        with source.open_directory(name) as directory:
            before = seen_files(directory, limits)
            found, report = upload_tree(
                store, directory, f"{prefix}{name}/", abandoned, limits=limits, skipped=skipped
            )
            if seen_files(directory, limits) != before:
                raise ChangedMeanwhile
        store.remove([prefix + name])
    else:
        with source.open_file(name) as file:
            if os.fstat(file.fileno()).st_size > limits.size_bytes:
                raise LimitReached(f"the files have more than {limits.size_bytes} bytes")
            stored = store.upload(prefix + name, file.fileno(), abandoned)
        found, report = [Member("", stored)], Report(1, stored.size)
    if _identity(source, name) != identity:
        # Renamed away to be removed, as one of too many: nobody counts on what is left of it.
        raise ChangedMeanwhile
    # Of a former tree of this name, whole or not.
    remove_others(store, f"{prefix}{name}/", found)
    return found, report


def seen_files(directory: Directory, limits: Limits) -> dict[str, tuple[int, int, int]]:
    """Return the number, the size and the time of the last change of each file of a tree, by its
    path. Raises LimitReached, ChangedMeanwhile, OSError."""
    seen = {}
    for visit in walk(directory, limits):
        if visit.entry.kind is Kind.FILE:
            about = visit.directory.stat(visit.entry.name)
            seen[visit.path] = (about.st_ino, about.st_size, about.st_mtime_ns)
    return seen


def _identity(source: Directory, name: str) -> tuple[int, int]:
    about = source.stat(name)
    return about.st_ino, about.st_mtime_ns


def is_file(value: Any) -> bool:
    """Whether a value of a mark is a file of its tree."""
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and type(value[1]) is int
        and value[1] >= 0
        and isinstance(value[2], str)
        and (not value[0] or all(map(is_name, value[0].split("/"))))
        and (len(value) == 3 or (isinstance(value[3], str) and bool(_PART.fullmatch(value[3]))))
    )
