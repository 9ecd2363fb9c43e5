"""The drive in a directory: what the routes of `/v1/drive/` ask, in threads of its own."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from typing_extensions import override

from app.drive.drive import Drive, FoundFile, NewFile, Page, PageRequest, Stored
from app.drive.folder import placing, staging, tree
from app.drive.folder.placing import Placement, placed
from app.drive.folder.room import Room
from app.drive.folder.staging import StagedFile
from app.drive.folder.tree import OpenFile
from app.drive.folder.usage import Lease
from app.drive.folder.write_behind import WriteBehind
from app.drive.paths import DrivePath, check_writable
from app.drive.tenants import check_tenant
from app.drive.threads import DriveThreads, Strand
from app.drive.versions import Preconditions, Version
from app.files.names import unguessable

#: Most bytes that a thread sends before others have their turn.
_PIECE: Final = 8 * 1024 * 1024


class FolderDrive(Drive):
    """The folders of all tenants."""

    def __init__(self, root: Path, *, threads: DriveThreads, room: Room) -> None:
        self._root = root
        self._threads = threads
        self._room = room

    @override
    async def read(self, tenant_id: str, path: DrivePath, page: PageRequest) -> FoundFile | Page:
        check_tenant(tenant_id)
        found = await self._threads.run(
            tenant_id, partial(tree.read, self._root, tenant_id, path, page), discard=_close_file
        )
        if isinstance(found, OpenFile):
            return _FolderFile(found, Strand(self._threads, tenant_id))
        return found

    @override
    async def find(self, tenant_id: str, path: DrivePath) -> None:
        found = await self.read(tenant_id, path, PageRequest(1, b""))
        if not isinstance(found, Page):
            found.end()

    @override
    async def check_destination(
        self, tenant_id: str, path: DrivePath, preconditions: Preconditions
    ) -> None:
        check_tenant(tenant_id)
        check_writable(path)
        await self._threads.run(
            tenant_id,
            partial(placing.check_destination, self._root, tenant_id, path, preconditions),
        )

    @override
    @asynccontextmanager
    async def staged(
        self, tenant_id: str, path: DrivePath, *, size: int | None
    ) -> AsyncIterator[NewFile]:
        # Beside its place: it is renamed.
        async with self._room.leased(tenant_id, size or 0) as lease:
            file = await self._threads.run(
                tenant_id, partial(StagedFile, self._root, tenant_id), discard=StagedFile.close
            )
            writing = WriteBehind(self._threads, tenant_id, file.sync)
            try:
                yield _NewFile(writing, self._root, self._room, lease, file, path)
            finally:
                writing.end(file.close)

    @override
    async def delete(
        self, tenant_id: str, path: DrivePath, *, recursive: bool, preconditions: Preconditions
    ) -> None:
        check_tenant(tenant_id)
        freed = await self._threads.run(
            tenant_id, partial(_delete, self._root, tenant_id, path, recursive, preconditions)
        )
        self._room.add(tenant_id, -freed)
        if recursive:
            self._room.clear_soon(tenant_id)


class _FolderFile(FoundFile):
    """Sent by the kernel, in threads of the drive, which are held while the disk is read."""

    def __init__(self, opened: OpenFile, strand: Strand) -> None:
        self._opened = opened
        self._strand = strand

    @property
    @override
    def version(self) -> Version:
        return self._opened.version

    @override
    async def send(self, sock: int, part: range) -> int | None:
        return await self._strand.run(
            partial(_sendfile, sock, self._opened.descriptor, part.start, len(part))
        )

    @override
    def end(self, then: Callable[[], None] = lambda: None) -> None:
        self._strand.end(partial(_close, self._opened, then))


class _NewFile(NewFile):
    def __init__(
        self,
        writing: WriteBehind,
        root: Path,
        room: Room,
        lease: Lease,
        file: StagedFile,
        path: DrivePath,
    ) -> None:
        self._writing = writing
        self._root = root
        self._room = room
        self._lease = lease
        self._file = file
        self._path = path

    @override
    async def write(self, data: bytes | bytearray) -> None:
        self._lease.grow(self._lease.written + len(data))
        free, others = 0, None

        def write() -> None:
            nonlocal free, others
            free = self._room.look(len(data))
            if self._lease.size != self._lease.claim.size:
                # It is longer than was known.
                others = self._room.claim(self._lease)
            self._file.write(data)

        await self._writing.write(write, len(data))
        self._lease.saw(free)
        if others is not None:
            self._room.saw_others(self._lease.tenant_id, others)
        self._lease.written += len(data)

    @override
    async def store(self, preconditions: Preconditions) -> Stored:
        await self._writing.finish()
        placement = Placement(self._root, self._lease.tenant_id, self._path, self._file.name)
        stored = await placed(
            self._writing.strand, placement, lambda placement: placement.put(preconditions)
        )
        self._lease.growth = stored.version.size - stored.freed
        return stored


def _delete(
    root: Path, tenant_id: str, path: DrivePath, recursive: bool, preconditions: Preconditions
) -> int:
    with staging.staging_of(root, tenant_id) as own, staging.locked(own):
        return tree.delete(
            root,
            tenant_id,
            path,
            recursive=recursive,
            preconditions=preconditions,
            trash=own,
            trash_name=staging.TRASH + unguessable(),
        )


def _close_file(found: OpenFile | Page) -> None:
    if isinstance(found, OpenFile):
        found.close()


def _sendfile(sock: int, file: int, offset: int, count: int) -> int | None:
    """Send what the socket takes; None if it takes nothing at the moment. In a thread."""
    try:
        return os.sendfile(sock, file, offset, min(count, _PIECE))
    except BlockingIOError:
        return None


def _close(opened: OpenFile, then: Callable[[], None]) -> None:
    with suppress(OSError):
        opened.close()
    then()
