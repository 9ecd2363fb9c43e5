"""Trees in an object store that are there as a whole or not at all: content first, mark last.

    <prefix><name>                  the tree that is one file
    <prefix><name>/...              the files of any other
    <prefix>.complete/<name>        its mark: which objects belong to it, in JSON

A store renames nothing. So a tree counts while its mark is there and the
objects are those that it names; whoever writes dies at any moment, and leaves
no half tree that counts. One that is written anew loses its mark first.
"""

import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.files.copying import Report
from app.files.directory import Directory, LimitReached
from app.files.walking import Limits
from app.objects.store import ChangedObject, ObjectStore, StoredObject
from app.objects.trees import (
    Member,
    fetch_file,
    fetch_members,
    members,
    remove_others,
    upload_tree,
)

#: The folder of the marks.
COMPLETE: Final = ".complete"
#: Bytes of a mark: it has a line for each file.
_MAX_MARK: Final = 256 * 1024 * 1024
#: Marks of one prefix that are looked at.
_MOST: Final = 50_000


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
        self._prefix = prefix

    def names(self) -> list[Published]:
        """Return the trees that are there, by name. Raises LimitReached if there are very many."""
        marks = self._store.listing(self._mark(""), limit=_MOST).objects
        return [
            Published(mark.key.removeprefix(self._mark("")), mark.etag, mark.modified)
            for mark in marks
        ]

    def is_there(self, name: str) -> bool:
        """Return whether there is a tree of this name."""
        mark = next(self._store.objects(self._mark(name), limit=1), None)
        return mark is not None and mark.key == self._mark(name)

    def members(self, name: str) -> list[Member]:
        """Return the objects of a tree. Raises FileNotFoundError; ValueError for a mark that
        nobody here has written."""
        mark = self._read(name)
        return [
            Member(path, StoredObject(self._object(name, path), size, etag, 0))
            for path, size, etag in mark["files"]
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
        if stat.S_ISDIR(source.stat(name).st_mode):
            with source.open_directory(name) as directory:
                found, report = upload_tree(
                    self._store, directory, self._folder(name), abandoned, limits=limits
                )
            self._store.remove([self._object(name, "")])
        else:
            with source.open_file(name) as file:
                if os.fstat(file.fileno()).st_size > limits.size_bytes:
                    raise LimitReached(f"the files have more than {limits.size_bytes} bytes")
                stored = self._store.upload(self._object(name, ""), file.fileno(), abandoned)
            found, report = [Member("", stored)], Report(1, stored.size)
        # Of a former tree of this name, whole or not.
        remove_others(self._store, self._folder(name), found)
        self._write_mark(name, found)
        return report

    def mark(self, name: str) -> None:
        """Have a tree count of which all objects have been written."""
        self._write_mark(name, members(self._store, self._folder(name), Limits()))

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
        self._store.remove([self._mark(name)])
        self._store.remove([self._object(name, "")])
        self._store.remove(each.key for each in self._store.objects(self._folder(name)))

    def used(self) -> int:
        """Return the bytes of all objects below the prefix, whether they count or not."""
        return sum(each.size for each in self._store.objects(self._prefix))

    def remove_all(self) -> None:
        """Remove all that is below the prefix, the marks first."""
        for prefix in (self._mark(""), self._prefix):
            self._store.remove(each.key for each in self._store.objects(prefix))

    def _read(self, name: str) -> dict[str, Any]:
        """Read a mark. Anybody with the bucket's credentials may have written it."""
        mark = orjson.loads(self._store.read(self._mark(name), limit=_MAX_MARK))
        files = mark.get("files") if isinstance(mark, dict) else None
        if not isinstance(files, list) or not all(map(_is_file, files)):
            raise ValueError("it is no mark of a tree")
        return {"files": files}

    def _mark(self, name: str) -> str:
        return f"{self._prefix}{COMPLETE}/{name}"

    def _folder(self, name: str) -> str:
        return f"{self._prefix}{name}/"

    def _object(self, name: str, path: str) -> str:
        """Return the key of a tree's file; without a path, of the tree that is one file."""
        return self._folder(name) + path if path else self._prefix + name


def _is_file(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 3
        and isinstance(value[0], str)
        and type(value[1]) is int
        and value[1] >= 0
        and isinstance(value[2], str)
        and not {"..", "."} & set(value[0].split("/"))
    )
