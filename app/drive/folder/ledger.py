"""What this replica and the others on the machine have let in since their counts.

    .uploads/.usage/<tenant>/<replica>      three numbers, locked as long as the replica lives

Each replica writes its own, before it reads the others': of two that let in a file at
once, one at least sees the other's. Nothing of it is durable; what a replica that has
ended let in is in the next count. The calls block, for threads, and raise OSError.
"""

import fcntl
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.drive.folder import staging
from app.files.directory import Directory, Kind, NotARegularFile
from app.files.names import unguessable

_FOLDER: Final = ".usage"
#: Bytes that have come since the replica has served the tenant, those that went, and those of
#: files that are on their way.
_NUMBERS: Final = struct.Struct("<qqq")
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

#: What has come through each replica up to a moment, or has gone, by its name.
Mark = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Of one replica."""

    came: int
    went: int
    claimed: int


@dataclass(slots=True, eq=False)
class Claim:
    """Room for one file that is on its way."""

    size: int = 0
    ended: bool = False


@dataclass(slots=True, eq=False)
class _Tenant:
    file: int
    came: int = 0
    went: int = 0
    claims: set[Claim] = field(default_factory=set)

    def grow(self, size: int) -> None:
        """Note what has come; less than 0 is what has gone."""
        if size > 0:
            self.came += size
        else:
            self.went -= size


class Ledger:
    """This replica's numbers, and a look at the others'. Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._name = unguessable()
        #: Of those that this replica has let anything in of.
        self._tenants: dict[str, _Tenant] = {}
        #: Of a tenant: what had come when its last count began, and what had gone when that ended.
        self._counted: dict[str, tuple[Mark, Mark]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def claim(self, tenant_id: str, claim: Claim, size: int) -> int:
        """Set room aside, so much for this file in all; return what the others have let in.

        Nothing is set aside for a claim that has ended.
        """
        with self._changed(tenant_id) as its:
            if not claim.ended:
                claim.size = size
                its.claims.add(claim)
        return self.others(tenant_id)

    def end(self, tenant_id: str, claim: Claim, grown: int) -> None:
        """Take a claim back: the tenant has grown by what became of it."""
        with self._changed(tenant_id) as its:
            claim.ended = True
            its.claims.discard(claim)
            its.grow(grown)

    def add(self, tenant_id: str, size: int) -> None:
        """Note by what the tenant has grown; less than 0 is what has gone."""
        with self._changed(tenant_id) as its:
            its.grow(size)

    def others(self, tenant_id: str) -> int:
        """Return what other replicas have let in since this one's last count began, less what has
        gone since that ended: what went meanwhile may not have been counted."""
        came, went = self._counted.get(tenant_id, ({}, {}))
        return sum(
            each.came - came.get(name, 0) - (each.went - went.get(name, 0)) + each.claimed
            for name, each in self._read(tenant_id).items()
        )

    def mark(self, tenant_id: str) -> Mark:
        """Return what has come through the others by now: call it when a count begins.

        What replicas have left that live no more goes: the count finds it.
        """
        return {name: each.came for name, each in self._read(tenant_id, remove_ended=True).items()}

    def counted(self, tenant_id: str, mark: Mark) -> int:
        """Take over that all up to a mark is in the count that ends; return what came since."""
        went = {name: each.went for name, each in self._read(tenant_id).items()}
        self._counted[tenant_id] = mark, went
        return self.others(tenant_id)

    def close(self) -> None:
        """End it. What it has let in stays there until others have counted."""
        with self._lock:
            self._closed = True
            for its in self._tenants.values():
                os.close(its.file)

    @contextmanager
    def _changed(self, tenant_id: str) -> Iterator[_Tenant]:
        """Change a tenant's numbers in the block; others can read them after it."""
        with self._lock:
            if self._closed:
                # Nobody looks at what comes of it.
                yield _Tenant(-1)
                return
            its = self._of(tenant_id)
            yield its
            _write(its)

    def _of(self, tenant_id: str) -> _Tenant:
        its = self._tenants.get(tenant_id)
        if its is None:
            with self._folder(tenant_id) as folder:
                file = os.open(self._name, _OPEN, 0o600, dir_fd=folder.descriptor)
            its = self._tenants[tenant_id] = _Tenant(file)
            fcntl.flock(file, fcntl.LOCK_EX)
            _write(its)
        return its

    def _folder(self, tenant_id: str) -> Directory:
        return staging.private_folder(self._root, _FOLDER, tenant_id)

    def _read(self, tenant_id: str, *, remove_ended: bool = False) -> dict[str, _Numbers]:
        found = {}
        with self._folder(tenant_id) as folder:
            for entry in folder.scan():
                if entry.kind is not Kind.FILE or entry.name == self._name:
                    continue
                with suppress(FileNotFoundError, NotARegularFile, struct.error):
                    with folder.open_file(entry.name) as file:
                        came, went, claimed = _NUMBERS.unpack(file.read(_NUMBERS.size))
                        lives = _lives(file.fileno())
                    found[entry.name] = _Numbers(came, went, claimed if lives else 0)
                    if remove_ended and not lives:
                        folder.unlink(entry.name)
        return found


def _write(its: _Tenant) -> None:
    claimed = sum(each.size for each in its.claims)
    os.pwrite(its.file, _NUMBERS.pack(its.came, its.went, claimed), 0)


def _lives(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
