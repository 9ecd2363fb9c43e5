"""The data sets that were fetched for jobs: a bounded cache, least recently used first out.

    <data>/cache/
        incoming/           being made or being removed: cleared at every start
        entries/<key>/
            entry.json      whose it is, what it is; its mtime is when it was used last
            data/           the file, or the directory, under its own name
            jobs/<job id>   the jobs that use it now
            nodes/<node id> the nodes that it was fetched or used for

A key stands for tenant, URL and version: data that changed are another entry,
and no tenant ever meets what was fetched for another.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from app.coordinator.data.data_files import MAX_DEPTH, MAX_FILES, DataFile, data_files
from app.coordinator.data.drive import BadUrl, DriveFileSystem, shown
from app.coordinator.storage.named_locks import NamedLocks
from app.files.copying import copy_content
from app.files.directory import Directory
from app.files.json_files import read_json, write_json
from app.files.removing import remove_tree
from app.files.walking import Limits, tree_size

#: Of an entry: its files and the directories that they are in.
_LIMITS: Final = Limits(depth=MAX_DEPTH + 1, entries=MAX_FILES * (MAX_DEPTH + 1))

log = structlog.get_logger("scaimind.coordinator")


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """A data set in the cache. Times are in microseconds since 1970."""

    path: Path
    tenant_id: str
    url: str
    size_bytes: int
    cached_at: int
    last_accessed: int
    jobs: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)

    @property
    def local_path(self) -> Path:
        """What a job reads."""
        return self.path / "data" / _last_part(self.url)


class DataCache:
    """Blocks: call `fetch` in a thread. Safe to use from several threads."""

    def __init__(self, root: Path, *, limit_bytes: int) -> None:
        self._entries_root = root / "entries"
        self._incoming = root / "incoming"
        self.limit_bytes = limit_bytes
        self._entries: dict[str, Entry] = {}
        #: Bytes of what is being fetched.
        self._promised = 0
        self._lock = threading.Lock()
        #: One job at a time fetches the same thing; the others find it there.
        self._fetching = NamedLocks()

    def open(self, *, running: Collection[str]) -> None:
        """Take up what a former coordinator left; `running` are the jobs that still use it."""
        for folder in (self._entries_root, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)
        for path in self._incoming.iterdir():
            _remove(path)
        for path in self._entries_root.iterdir():
            entry = _load(path)
            if entry is None:
                _remove(self._withdraw(path))
                continue
            for job_id in entry.jobs - set(running):
                (path / "jobs" / job_id).unlink()
            entry.jobs &= set(running)
            self._entries[path.name] = entry
        self._make_room(0)

    def fetch(
        self,
        files: DriveFileSystem,
        url: str,
        *,
        tenant_id: str,
        job_id: str,
        node_ids: Sequence[str],
        abandoned: threading.Event,
        now: int,
    ) -> Path | None:
        """Where the job reads the data set; it stays there until `release`.

        None if it does not fit beside what jobs are using. Raises BadUrl,
        Abandoned, OSError.
        """
        found = data_files(files, url)
        size = sum(file.size_bytes for file in found)
        key = _key(tenant_id, url, found)
        with self._fetching.hold(key, abandoned):
            with self._lock:
                # Taken into use at once: what nobody uses may be removed at any moment.
                if (entry := self._entries.get(key)) is not None:
                    _use(entry, job_id, node_ids, now)
                    return entry.local_path
            if not self._make_room(size):
                return None
            entry = Entry(
                path=self._entries_root / key,
                tenant_id=tenant_id,
                url=url,
                size_bytes=size,
                cached_at=now,
                last_accessed=now,
            )
            try:
                self._make(entry, files, found, abandoned)
                with self._lock:
                    self._entries[key] = entry
                    _use(entry, job_id, node_ids, now)
            finally:
                with self._lock:
                    self._promised -= size
            log.info("data_set_cached", tenant_id=tenant_id, url=url, size_bytes=size)
            return entry.local_path

    def release(self, job_id: str) -> None:
        """The job uses nothing any more."""
        with self._lock:
            for entry in self._entries.values():
                if job_id in entry.jobs:
                    entry.jobs.remove(job_id)
                    (entry.path / "jobs" / job_id).unlink(missing_ok=True)

    def entries(self, tenant_id: str, *, node_id: str = "") -> list[Entry]:
        """The tenant's data sets, of one node if it is named, the most recently used first."""
        with self._lock:
            own = [
                entry
                for entry in self._entries.values()
                if entry.tenant_id == tenant_id and (not node_id or node_id in entry.nodes)
            ]
        return sorted(own, key=lambda entry: entry.last_accessed, reverse=True)

    def _make_room(self, size: int) -> bool:
        """Promise room for `size` bytes, and remove for it what was used longest ago.

        Removes nothing, and returns False, if that would not be enough.
        """
        doomed = []
        with self._lock:
            used = sum(entry.size_bytes for entry in self._entries.values()) + self._promised
            unused = sorted(
                (item for item in self._entries.items() if not item[1].jobs),
                key=lambda item: item[1].last_accessed,
            )
            excess = used + size - self.limit_bytes
            if size and excess > sum(entry.size_bytes for _, entry in unused):
                return False
            for key, entry in unused:
                if excess <= 0:
                    break
                excess -= entry.size_bytes
                del self._entries[key]
                doomed.append(self._withdraw(entry.path))
                log.info("data_set_evicted", tenant_id=entry.tenant_id, url=entry.url)
            self._promised += size
        # Without the lock: others only look, and must not wait for the disk.
        for path in doomed:
            _remove(path)
        return True

    def _withdraw(self, path: Path) -> Path:
        """Take a directory away to be removed: what is left of it after a crash is no entry."""
        doomed = self._incoming / secrets.token_hex(8)
        path.rename(doomed)
        return doomed

    def _make(
        self,
        entry: Entry,
        files: DriveFileSystem,
        found: Sequence[DataFile],
        abandoned: threading.Event,
    ) -> None:
        """Copy beside, then rename: an entry is there as a whole or not at all."""
        fresh = self._incoming / secrets.token_hex(8)
        try:
            for folder in ("data", "jobs", "nodes"):
                (fresh / folder).mkdir(parents=True)
            root = fresh / "data" / _last_part(entry.url)
            if not found:
                root.mkdir()
            for file in found:
                target = root / file.name if file.name else root
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(files, file, target, abandoned)
            write_json(
                fresh / "entry.json",
                {
                    "tenant_id": entry.tenant_id,
                    "url": entry.url,
                    "size_bytes": entry.size_bytes,
                    "cached_at": entry.cached_at,
                },
            )
            fresh.rename(entry.path)
        except BaseException:
            _remove(fresh)
            raise


def _copy(files: DriveFileSystem, file: DataFile, target: Path, abandoned: threading.Event) -> None:
    with files.open(file.url) as source, open(target, "xb") as copy:
        copied = copy_content(source.fileno(), copy.fileno(), abandoned)
        about = os.fstat(source.fileno())
        if (about.st_size, about.st_mtime_ns, about.st_ino) != file.version or (
            copied != file.size_bytes
        ):
            raise BadUrl(f"{shown(file.url)} was changed while it was fetched")
        # The entry's name must not outlive its content in a power cut.
        os.fsync(copy.fileno())
        os.fchmod(copy.fileno(), 0o440)


def _remove(path: Path) -> None:
    """Remove a directory of the cache; what cannot be removed now is removed at the next start."""
    with suppress(OSError), Directory.open(path.parent) as folder:
        remove_tree(folder, path.name)


def _use(entry: Entry, job_id: str, node_ids: Sequence[str], now: int) -> None:
    (entry.path / "jobs" / job_id).touch()
    entry.jobs.add(job_id)
    for node_id in node_ids:
        (entry.path / "nodes" / node_id).touch()
    entry.nodes.update(node_ids)
    os.utime(entry.path / "entry.json", ns=(now * 1000, now * 1000))
    entry.last_accessed = now


def _load(path: Path) -> Entry | None:
    """What a former coordinator made; None if it is not whole."""
    try:
        about: dict[str, Any] | None = read_json(path / "entry.json")
        if about is None:
            return None
        entry = Entry(
            path=path,
            last_accessed=(path / "entry.json").stat().st_mtime_ns // 1000,
            jobs=set(os.listdir(path / "jobs")),
            nodes=set(os.listdir(path / "nodes")),
            **about,
        )
    except (OSError, ValueError, TypeError):
        return None
    try:
        with Directory.open(path / "data") as data:
            whole = tree_size(data, _LIMITS)
    except OSError:
        return None
    return entry if whole == entry.size_bytes else None


def _key(tenant_id: str, url: str, found: Sequence[DataFile]) -> str:
    told = repr((tenant_id, url, [(file.name, file.version) for file in found]))
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _last_part(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]
