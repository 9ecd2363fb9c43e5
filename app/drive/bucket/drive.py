"""The drive in an object store: what the routes of `/v1/drive/` ask, in threads of its own."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from typing_extensions import override

from app.drive.bucket import tree, writing
from app.drive.bucket.keys import check_not_hidden, key_of
from app.drive.bucket.room import BucketRoom, Lease
from app.drive.bucket.turns import PathTurns
from app.drive.drive import Drive, FoundFile, NewFile, Page, PageRequest, Stored
from app.drive.paths import DrivePath, check_deletable, check_writable
from app.drive.tenants import check_tenant
from app.drive.threads import DriveThreads, Strand
from app.drive.versions import Preconditions, Version
from app.objects.store import ObjectReader, ObjectStore, StoredObject
from app.objects.uploads import Condition, StoredPart

#: Bytes that are read of an object at once, and that the event loop writes to a socket at once.
_PIECE: Final = 1024 * 1024
_WRITTEN: Final = 256 * 1024


class BucketDrive(Drive):
    """The objects of all tenants."""

    def __init__(
        self, store: ObjectStore, *, threads: DriveThreads, room: BucketRoom, turns: PathTurns
    ) -> None:
        self._store = store
        self._threads = threads
        self._room = room
        self._turns = turns

    @override
    async def read(self, tenant_id: str, path: DrivePath, page: PageRequest) -> FoundFile | Page:
        check_tenant(tenant_id)
        found = await self._threads.run(
            tenant_id, partial(tree.read, self._store, tenant_id, path, page)
        )
        if isinstance(found, Page):
            return found
        return _ObjectFile(self._store, found, Strand(self._threads, tenant_id))

    @override
    async def find(self, tenant_id: str, path: DrivePath) -> None:
        await self.read(tenant_id, path, PageRequest(1, b""))

    @override
    async def check_destination(
        self, tenant_id: str, path: DrivePath, preconditions: Preconditions
    ) -> None:
        check_tenant(tenant_id)
        check_writable(path)
        check_not_hidden(path)
        await self._threads.run(
            tenant_id,
            partial(writing.check_destination, self._store, tenant_id, path, preconditions),
        )

    @override
    @asynccontextmanager
    async def staged(
        self, tenant_id: str, path: DrivePath, *, size: int | None
    ) -> AsyncIterator[NewFile]:
        part = writing.part_size(size)
        async with self._room.leased(tenant_id, size or 0) as lease:
            strand = Strand(self._threads, tenant_id)
            file = _NewObject(
                self._store, tenant_id, path, part, lease=lease, turns=self._turns, strand=strand
            )
            try:
                yield file
            finally:
                strand.end(file.abort)

    @override
    async def delete(
        self, tenant_id: str, path: DrivePath, *, recursive: bool, preconditions: Preconditions
    ) -> None:
        check_tenant(tenant_id)
        check_deletable(path)
        check_not_hidden(path)
        async with self._turns.turn(tenant_id, key_of(self._store, tenant_id, path)) as strand:
            gone = await strand.run(
                partial(
                    tree.delete,
                    self._store,
                    tenant_id,
                    path,
                    recursive=recursive,
                    preconditions=preconditions,
                )
            )
        self._room.add(tenant_id, -gone.size)
        while gone.folder:
            # One page in a call: others have their turn, and a caller that leaves ends it.
            gone = await self._threads.run(
                tenant_id, partial(tree.remove_some, self._store, gone.folder)
            )
            self._room.add(tenant_id, -gone.size)


class _ObjectFile(FoundFile):
    """One version of an object. A piece of it is in memory while the client takes it."""

    def __init__(self, store: ObjectStore, found: StoredObject, strand: Strand) -> None:
        self._store = store
        self._found = found
        self._strand = strand
        self._version = tree.version_of(found)
        self._reader: ObjectReader | None = None
        self._piece = memoryview(b"")

    @property
    @override
    def version(self) -> Version:
        return self._version

    @override
    async def send(self, sock: int, part: range) -> int | None:
        if self._reader is None:
            self._reader = self._store.reader(self._found, part.start, part.stop)
        if not self._piece:
            self._piece = memoryview(await self._strand.run(partial(self._reader.read, _PIECE)))
            if not self._piece:
                return 0
        try:
            sent = os.write(sock, self._piece[:_WRITTEN])
        except BlockingIOError:
            return None
        self._piece = self._piece[sent:]
        return sent

    @override
    def end(self, then: Callable[[], None] = lambda: None) -> None:
        def close() -> None:
            if self._reader is not None:
                self._reader.close()
            then()

        self._strand.end(close)


class _NewObject(NewFile):
    """Gathered into parts, each of which is sent when it is full. What blocks runs in threads."""

    def __init__(
        self,
        store: ObjectStore,
        tenant_id: str,
        path: DrivePath,
        part: int,
        *,
        lease: Lease,
        turns: PathTurns,
        strand: Strand,
    ) -> None:
        self._store = store
        self._tenant_id = tenant_id
        self._path = path
        self._key = key_of(store, tenant_id, path)
        self._part = part
        self._lease = lease
        self._turns = turns
        self._strand = strand
        self._gathered = bytearray()
        self._written = 0
        #: The store's id of the object in parts; empty before the first, and once it is over.
        self._upload = ""
        self._parts: list[StoredPart] = []

    @override
    async def write(self, data: bytes | bytearray) -> None:
        self._written += len(data)
        self._lease.grow(self._written)
        self._gathered += data
        while len(self._gathered) >= self._part:
            content = bytes(memoryview(self._gathered)[: self._part])
            del self._gathered[: self._part]
            await self._strand.run(partial(self._send, content))

    @override
    async def store(self, preconditions: Preconditions) -> Stored:
        async with self._turns.turn(self._tenant_id, self._key) as strand:
            stored = await strand.run(
                partial(
                    writing.placed,
                    self._store,
                    self._tenant_id,
                    self._path,
                    preconditions,
                    self._put,
                )
            )
        self._lease.growth = stored.version.size - stored.freed
        return stored

    def _send(self, content: bytes) -> None:
        number = len(self._parts) + 1
        writing.check_part(number, self._part)
        if not self._upload:
            self._upload = self._store.uploads.begin(self._key)
        self._parts.append(self._store.uploads.send(self._key, self._upload, number, content))

    def _put(self, condition: Condition) -> None:
        if not self._upload:
            self._store.uploads.put(self._key, bytes(self._gathered), condition)
            return
        if self._gathered:
            content = bytes(self._gathered)
            self._gathered.clear()
            self._send(content)
        self._store.uploads.complete(self._key, self._upload, self._parts, condition)
        self._upload = ""

    def abort(self) -> None:
        """Have the store forget what was not put into its place. In a thread."""
        upload, self._upload = self._upload, ""
        if upload:
            self._store.uploads.abort(self._key, upload)
