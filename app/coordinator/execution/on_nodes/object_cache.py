"""What a node has fetched of an object store: a bounded cache, least recently used first out.

    <root>/
        lock                    held shortly, by whoever looks at the entries or changes them
        making/<two digits>     held by whoever fetches an entry whose key begins so
        incoming/<key>/         being fetched
        entries/<key>/size      the bytes of its files; its mtime is when it was used last
        entries/<key>/files/    them

The processes of all runs on the node share it, and may die at any moment. A run
gets a second name of each file (link(2)), below a directory of its own: while
that is there, the entry is in use. Whatever is evicted, the run keeps its files.
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from app.files.copying import Abandoned
from app.files.directory import Directory, Kind, LimitReached
from app.files.removing import remove_tree
from app.files.walking import Limits, Position, walk
from app.objects.store import DriveUnavailable, ObjectStore
from app.objects.trees import Member, fetch_members

#: Seconds between two tries to get a lock.
_LOOK: Final = 0.2
#: Of an entry: what `members` let through.
_ANY: Final = Limits()

log = structlog.get_logger("scaimind.coordinator")


class ObjectCache:
    """Blocks: call it in a thread. Safe to use from several threads and processes."""

    def __init__(self, root: Path, store: ObjectStore, *, limit_bytes: int) -> None:
        self._root = root
        self._store = store
        self._limit = limit_bytes
        self._entries = root / "entries"
        self._incoming = root / "incoming"
        self._making = root / "making"

    def place(
        self,
        tenant_id: str,
        tree: Sequence[Member],
        target: Directory,
        abandoned: threading.Event,
    ) -> None:
        """Have the files of a tree in a directory, as links to those in the cache.

        A file is read-only. Raises LimitReached if the cache is too small for
        them, DriveUnavailable while others use too much of it, ChangedObject,
        FileNotFoundError, Abandoned, OSError, and as every call of the store.
        """
        key, size = _key(tenant_id, tree), sum(member.stored.size for member in tree)
        if size > self._limit:
            raise LimitReached(
                f"it has {size} bytes, and the cache of a node {self._limit} (setting cache_bytes)"
            )
        for folder in (self._entries, self._incoming, self._making):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        with _locked(self._making / key[:2], abandoned):
            with self._lock():
                if self._link(key, target):
                    return
                self._make_room(key, size)
                fresh = self._incoming / key
                _remove(fresh)
                (fresh / "files").mkdir(parents=True)
                (fresh / "size").write_text(str(size))
            try:
                with Directory.open(fresh / "files") as files:
                    fetch_members(self._store, tree, files, abandoned)
                    _make_read_only(files)
            except BaseException:
                _remove(fresh)
                raise
            with self._lock():
                fresh.rename(self._entries / key)
                self._link(key, target)
        log.info("tree_cached", tenant_id=tenant_id, size_bytes=size)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with open(self._root / "lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _link(self, key: str, target: Directory) -> bool:
        """Link an entry's files into a directory, if it is there. Call with the lock held."""
        entry = self._entries / key
        try:
            files = Directory.open(entry / "files")
        except FileNotFoundError:
            return False
        with files, Position(target) as position:
            for visit in walk(files, _ANY):
                if visit.entry.kind is Kind.FILE:
                    position.follow(visit.parts)
                    visit.directory.link(visit.entry.name, position.directory, visit.entry.name)
        os.utime(entry / "size")
        return True

    def _make_room(self, key: str, size: int) -> None:
        """Evict what nobody uses until there is room. Call with the lock held.

        Raises DriveUnavailable if that is not enough.
        """
        used, unused = 0, []
        for path in (*self._incoming.iterdir(), *self._entries.iterdir()):
            if path.parent == self._incoming and (path.name == key or self._is_left(path.name)):
                _remove(path)
                continue
            try:
                about = (path / "size").stat()
                own = int((path / "size").read_text())
            except (OSError, ValueError):
                # Half made, or half removed.
                _remove(path)
                continue
            used += own
            if path.parent == self._entries and not _is_used(path / "files"):
                unused.append((about.st_mtime_ns, own, path))
        for _, own, path in sorted(unused):
            if used + size <= self._limit:
                return
            _remove(path)
            used -= own
        if used + size > self._limit:
            raise DriveUnavailable("the node's cache is full of what other jobs use")

    def _is_left(self, key: str) -> bool:
        """Whether whoever fetched an entry is gone."""
        with open(self._making / key[:2], "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True


@contextmanager
def _locked(path: Path, abandoned: threading.Event) -> Iterator[None]:
    """Hold a lock that others may hold for long. Raises Abandoned."""
    with open(path, "ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if abandoned.wait(_LOOK):
                    raise Abandoned from None
        yield


def _is_used(files: Path) -> bool:
    """Whether a run has names of an entry's files."""
    with suppress(OSError), Directory.open(files) as directory:
        for visit in walk(directory, _ANY):
            if visit.entry.kind is Kind.FILE:
                return visit.directory.stat(visit.entry.name).st_nlink > 1
    return False


def _make_read_only(files: Directory) -> None:
    for visit in walk(files, _ANY):
        if visit.entry.kind is Kind.FILE:
            with visit.directory.open_file(visit.entry.name) as file:
                os.fchmod(file.fileno(), 0o444)


def _remove(path: Path) -> None:
    """Remove a directory; what cannot be removed now is tried again for the next entry."""
    with suppress(OSError), Directory.open(path.parent) as folder:
        remove_tree(folder, path.name)


def _key(tenant_id: str, tree: Sequence[Member]) -> str:
    told = repr((tenant_id, [(each.path, each.stored.key, each.stored.etag) for each in tree]))
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:40]
