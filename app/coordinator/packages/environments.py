"""The environments that there are: which can be used, who uses them, and which go first.

    <data>/environments/
        entries/<id>/
            environment.json  what it is; it is written last, so that what is not finished has none,
                              and its mtime is when it was used last
            env/              the virtual environment; read-only once it is finished
            jobs/<job id>     the jobs that use it now
        caches/<tenant>/      what a tenant's packages were made of
            cache.json        whose it is, and its size; its mtime is when it was used last
            uv/               uv's cache
        removed/              being removed: cleared at every start

An id is used once, and an environment stays where it was made: its programs
name its path. What nobody uses is removed when the limit demands it, the least
recently used first; a cache is as good as an environment then. Whoever makes one
has its room promised before, so that all together stay within the limit.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from app.coordinator.packages.entries import Cache, Environment, load, load_cache
from app.coordinator.resources.disk_use import disk_use
from app.coordinator.storage.named_locks import NamedLocks
from app.files.copying import Abandoned
from app.files.directory import Directory
from app.files.json_files import write_json
from app.files.removing import remove_tree

#: Seconds between two looks at whether a job that waits is still wanted.
_LOOK: Final = 0.1

log = structlog.get_logger("scaimind.coordinator")


class Environments:
    """Blocks: call it in a thread. Safe to use from several threads."""

    def __init__(self, root: Path, *, limit_bytes: int) -> None:
        self._entries_root = root / "entries"
        self._caches_root = root / "caches"
        self._removed = root / "removed"
        #: Bytes that all may have together.
        self.limit_bytes = limit_bytes
        self._entries: dict[str, Environment] = {}
        self._caches: dict[str, Cache] = {}
        #: What was promised to those that are being made.
        self._promised = 0
        self._lock = threading.Lock()
        #: When there may be more room.
        self._freed = threading.Condition(self._lock)
        self._turns = NamedLocks()

    def open(self, *, running: Collection[str]) -> None:
        """Take up what a former coordinator left; `running` are the jobs that still use it.

        What it had not finished is removed. Raises OSError.
        """
        for folder in (self._entries_root, self._caches_root, self._removed):
            folder.mkdir(parents=True, exist_ok=True)
        for path in self._removed.iterdir():
            _remove(path)
        for path in self._entries_root.iterdir():
            entry = load(path)
            if entry is None:
                _remove(path)
                continue
            for job_id in entry.jobs - set(running):
                (path / "jobs" / job_id).unlink()
            entry.jobs &= set(running)
            self._entries[path.name] = entry
        for path in self._caches_root.iterdir():
            if (cache := load_cache(path)) is not None:
                self._caches[cache.tenant_id] = cache
            else:
                _remove(path)
        self.make_room(0)

    # Using

    def take(self, key: str, job_id: str, now: int) -> Environment | None:
        """Return the newest environment that was made of the same, in use by the job until
        `release`; None if there is none that is good enough."""
        with self._lock:
            same = [each for each in self._entries.values() if each.key == key]
            same = [each for each in same if each.usable(now)]
            if not same:
                return None
            entry = max(same, key=lambda each: each.made_at)
            _use(entry, job_id, now)
            return entry

    def of_job(self, job_id: str) -> Environment | None:
        """Return the environment that a job uses."""
        with self._lock:
            return next((each for each in self._entries.values() if job_id in each.jobs), None)

    def release(self, job_id: str) -> None:
        """The job uses none any more."""
        with self._lock:
            for entry in self._entries.values():
                if job_id in entry.jobs:
                    entry.jobs.remove(job_id)
                    self._freed.notify_all()
                    (entry.path / "jobs" / job_id).unlink(missing_ok=True)

    @property
    def size_bytes(self) -> int:
        """Bytes of all that there is, as far as it is finished."""
        with self._lock:
            return self._size()

    # Making

    def turn(
        self, name: str, abandoned: threading.Event, *, waits: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Let one at a time do what has this name. `waits` is called once if somebody else does.

        Raises Abandoned.
        """
        return self._turns.hold(name, abandoned, waits=waits)

    def begin(self) -> Path:
        """Make a directory for a new environment, which nobody is told of before it is finished.

        Raises OSError.
        """
        path = self._entries_root / secrets.token_hex(8)
        for folder in (path, path / "env", path / "tmp", path / "jobs"):
            folder.mkdir()
        return path

    def finish(
        self,
        path: Path,
        *,
        tenant_id: str,
        key: str,
        pinned: bool,
        size_bytes: int,
        job_id: str,
        now: int,
    ) -> Environment:
        """Make an environment known, in use by the job that asked for it. Raises OSError."""
        _forget(path, "tmp")
        entry = Environment(
            path=path,
            tenant_id=tenant_id,
            key=key,
            pinned=pinned,
            size_bytes=size_bytes,
            made_at=now,
            last_used=now,
        )
        about = {
            "tenant_id": tenant_id,
            "key": key,
            "pinned": pinned,
            "size_bytes": size_bytes,
            "made_at": now,
        }
        with self._lock:
            write_json(path / "environment.json", about)
            self._entries[path.name] = entry
            _use(entry, job_id, now)
        log.info("environment_made", tenant_id=tenant_id, size_bytes=size_bytes, pinned=pinned)
        return entry

    def discard(self, path: Path) -> None:
        """Remove what was begun and is not finished; what is left of it goes at the next start."""
        _remove(path)

    @contextmanager
    def cache(self, tenant_id: str, now: int, *, most: int) -> Iterator[Path]:
        """A tenant's cache, for one at a time; it stays as long as it is needed.

        One that has more than `most` bytes begins anew. Raises OSError.
        """
        name = hashlib.sha256(tenant_id.encode()).hexdigest()[:32]
        path = self._caches_root / name
        with self._lock:
            # Made and taken into use at once: what nobody uses may be removed at any moment.
            (path / "uv").mkdir(parents=True, exist_ok=True)
            cache = self._caches.setdefault(tenant_id, Cache(path=path, tenant_id=tenant_id))
            cache.busy = True
        try:
            if cache.size_bytes > most:
                _forget(path, "uv")
                (path / "uv").mkdir(exist_ok=True)
            yield path / "uv"
        finally:
            size = _size_of(path / "uv")
            with suppress(OSError):
                write_json(path / "cache.json", {"tenant_id": tenant_id, "size_bytes": size})
            with self._lock:
                cache.size_bytes, cache.last_used, cache.busy = size, now, False

    @contextmanager
    def promised(
        self, least: int, most: int, abandoned: threading.Event, *, waits: Callable[[], None]
    ) -> Iterator[int]:
        """Set room aside in the block, for an environment and its tenant's cache.

        That is `most` bytes, or what can be had by removing all that nobody uses, but
        not less than `least`: until then it waits for jobs to end and for others that
        are made, and calls `waits` once. What is to go for it is gone when the block
        begins. Raises Abandoned, OSError.
        """
        with self._freed:
            if (room := self._room()) < least:
                waits()
            while (room := self._room()) < least:
                self._freed.wait(_LOOK)
                if abandoned.is_set():
                    raise Abandoned
            size = min(most, room)
            self._promised += size
        try:
            self.make_room(0)
            yield size
        finally:
            with self._freed:
                self._promised -= size
                self._freed.notify_all()

    def _room(self) -> int:
        kept = sum(each.size_bytes for each in self._entries.values() if each.jobs)
        return max(self.limit_bytes - kept - self._promised, 0)

    def make_room(self, size: int) -> None:
        """Remove what nobody uses until `size` bytes fit besides the rest, as far as possible.

        Raises OSError.
        """
        doomed: list[Path] = []
        with self._lock:
            # What is being made of a busy cache has its room promised, the cache's included.
            busy = sum(each.size_bytes for each in self._caches.values() if each.busy)
            excess = self._size() - busy + self._promised + size - self.limit_bytes
            unused: list[Environment | Cache] = [
                *(each for each in self._entries.values() if not each.jobs),
                *(each for each in self._caches.values() if not each.busy),
            ]
            unused.sort(key=lambda each: each.last_used)
            for each in unused:
                if excess <= 0:
                    break
                excess -= each.size_bytes
                doomed.append(self._forget(each))
        # Without the lock: others only look, and must not wait for the disk.
        for path in doomed:
            _remove(path)

    def _forget(self, each: Environment | Cache) -> Path:
        """Have it be none any more, whatever becomes of its removal; return what is to go."""
        log.info(
            "environment_evicted",
            tenant_id=each.tenant_id,
            cache=isinstance(each, Cache),
            size_bytes=each.size_bytes,
        )
        if isinstance(each, Cache):
            # The tenant's next installation makes a new one at this path.
            del self._caches[each.tenant_id]
            return self._withdraw(each.path)
        del self._entries[each.path.name]
        (each.path / "environment.json").unlink(missing_ok=True)
        return each.path

    def _withdraw(self, path: Path) -> Path:
        """Move a directory, if it is there, to where only its removal finds it."""
        doomed = self._removed / secrets.token_hex(8)
        with suppress(FileNotFoundError):
            path.rename(doomed)
        return doomed

    def _size(self) -> int:
        made = sum(each.size_bytes for each in self._entries.values())
        return made + sum(each.size_bytes for each in self._caches.values())


def _use(entry: Environment, job_id: str, now: int) -> None:
    (entry.path / "jobs" / job_id).touch()
    entry.jobs.add(job_id)
    os.utime(entry.path / "environment.json", ns=(now * 1000, now * 1000))
    entry.last_used = now


def _size_of(path: Path) -> int:
    return disk_use([str(path)], most_bytes=1 << 62, most_files=1 << 62).size_bytes


def _remove(path: Path) -> None:
    _forget(path.parent, path.name)


def _forget(folder: Path, name: str) -> None:
    """Remove a tree; what cannot be removed now goes at the next start."""
    try:
        with Directory.open(folder) as directory:
            remove_tree(directory, name)
    except OSError as error:
        log.warning("environment_not_removed", reason=error.strerror)
