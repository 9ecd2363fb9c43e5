"""Trees of files, brought to an object store and fetched from it."""

import os
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from app.files.copying import Abandoned, Report
from app.files.directory import Directory, Kind, LimitReached, NotARegularFile
from app.files.names import is_utf8
from app.files.walking import ChangedMeanwhile, Limits, Position, walk
from app.objects.store import ObjectStore, StoredObject

#: Bytes of a name, as all of Linux's file systems have it, and of a key of S3.
_MAX_NAME: Final = 255
_MAX_KEY: Final = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a tree in the store."""

    #: Below the tree's root; empty if the tree is one file.
    path: str
    stored: StoredObject


def members(store: ObjectStore, prefix: str, limits: Limits) -> list[Member]:
    """Return the files below a prefix that ends with a slash, by key.

    Keys that no file system can have are passed over, and count. Raises
    LimitReached, and as every call of the store.
    """
    found: list[Member] = []
    size = 0
    for count, stored in enumerate(store.objects(prefix), 1):
        if count > limits.entries:
            raise LimitReached(f"there are more than {limits.entries} files")
        path = stored.key.removeprefix(prefix)
        parts = path.split("/")
        if any(not is_name(part) for part in parts):
            continue
        found.append(Member(path, stored))
        size += stored.size
        if size > limits.size_bytes:
            raise LimitReached(f"the files have more than {limits.size_bytes} bytes")
        if len(parts) > limits.depth:
            raise LimitReached(f"there are directories more than {limits.depth} deep")
    return found


def fetch_members(
    store: ObjectStore, found: Iterable[Member], target: Directory, abandoned: threading.Event
) -> None:
    """Fetch a tree's files into a directory. Files replace those of their name; where one is a
    directory for another, it is an error.

    Raises FileNotFoundError and ChangedObject for what is another tree by now,
    Abandoned, OSError, and as every call of the store.
    """
    with Position(target) as position:
        for member in found:
            *folders, name = member.path.split("/")
            position.follow(tuple(folders))
            fetch_file(store, member.stored, position.directory, name, abandoned)


def fetch_file(
    store: ObjectStore,
    stored: StoredObject,
    target: Directory,
    name: str,
    abandoned: threading.Event,
) -> None:
    """Fetch an object as a file that is there as a whole or not at all. Raises as
    `fetch_members`."""
    with target.create(name) as file:
        store.fetch(stored, file.fileno(), abandoned)
        os.fchmod(file.fileno(), 0o644)


def upload_tree(
    store: ObjectStore,
    source: Directory,
    prefix: str,
    abandoned: threading.Event,
    *,
    limits: Limits,
    skipped: Collection[str] = (),
) -> tuple[list[Member], Report]:
    """Write the files of a directory below a prefix that ends with a slash; returns what is there
    then, and what was left out: links, special files, and what has no name as a key. Files whose
    paths are `skipped` are passed over.

    Raises LimitReached, ChangedMeanwhile, ChangedObject, Abandoned, OSError,
    and as every call of the store.
    """
    written: list[Member] = []
    report = Report()
    for visit in walk(source, limits):
        if abandoned.is_set():
            raise Abandoned
        if visit.entry.kind is Kind.DIRECTORY:
            continue
        if visit.entry.kind is not Kind.FILE:
            report.leave_out(visit.path, visit.entry.kind.value)
            continue
        if visit.path in skipped:
            continue
        key = prefix + visit.path
        if not is_utf8(visit.path) or len(key.encode()) > _MAX_KEY:
            report.leave_out(visit.path, "no name that an object can have")
            continue
        try:
            file = visit.directory.open_file(visit.entry.name)
        except NotARegularFile:
            report.leave_out(visit.path, "no file any more when it was opened")
            continue
        except FileNotFoundError:
            # Of a tree that counts as a whole no file may be missed.
            raise ChangedMeanwhile from None
        with file:
            stored = store.upload(key, file.fileno(), abandoned)
        written.append(Member(visit.path, stored))
        report.files += 1
        report.size_bytes += stored.size
    return written, report


def remove_others(store: ObjectStore, prefix: str, kept: Sequence[Member]) -> None:
    """Remove what is below a prefix but for these files. Raises as every call of the store."""
    keys = {member.stored.key for member in kept}
    store.remove(each.key for each in store.objects(prefix) if each.key not in keys)


def is_name(part: str) -> bool:
    """Whether a part of a key can be a file's name."""
    return part not in ("", ".", "..") and "\0" not in part and len(part.encode()) <= _MAX_NAME
