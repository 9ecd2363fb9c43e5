"""The drive: what the routes of `/v1/drive/` ask, carried out in threads of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from app.drive import placing, staging, tree
from app.drive.disk_threads import DiskThreads, Strand
from app.drive.paths import DrivePath
from app.drive.placing import Placement, Stored, placed
from app.drive.room import Room
from app.drive.staging import StagedFile
from app.drive.tenants import check_tenant
from app.drive.tree import OpenFile, Page, PageRequest
from app.drive.usage import Lease
from app.drive.versions import Preconditions
from app.drive.write_behind import WriteBehind
from app.files.names import unguessable

#: Calls of the disk that are not done yet, for each thread; more are refused.
WAITING_PER_THREAD: Final = 64


class Drive:
    """The folders of all tenants. Raises `ApiError`; names are those of the caller's tenant.

    A file that is put into its place and what is deleted are so on the disk when
    the call returns.
    """

    def __init__(self, root: Path, *, threads: DiskThreads, room: Room) -> None:
        self._root = root
        self._threads = threads
        self._room = room

    def strand(self, tenant_id: str) -> Strand:
        """Return what makes calls that use the same descriptors, one after the other."""
        return Strand(self._threads, tenant_id)

    async def read(self, tenant_id: str, path: DrivePath, page: PageRequest) -> OpenFile | Page:
        """Open the file that is there, which the caller closes in a thread; or list the folder."""
        check_tenant(tenant_id)
        return await self._threads.run(
            tenant_id, partial(tree.read, self._root, tenant_id, path, page), discard=_close_file
        )

    async def find(self, tenant_id: str, path: DrivePath) -> None:
        """Raise `ApiError` unless a file that can be opened, or a folder, is there."""
        found = await self.read(tenant_id, path, PageRequest(1, b""))
        if isinstance(found, OpenFile):
            self._threads.post(tenant_id, found.close)

    async def check_destination(
        self, tenant_id: str, path: DrivePath, preconditions: Preconditions
    ) -> None:
        """Raise `ApiError` if a file could not be put there now."""
        check_tenant(tenant_id)
        placing.check_writable(path)
        await self._threads.run(
            tenant_id,
            partial(placing.check_destination, self._root, tenant_id, path, preconditions),
        )

    @asynccontextmanager
    async def staged(self, tenant_id: str, *, size: int | None) -> AsyncIterator["NewFile"]:
        """Write a new file beside its place; what is not stored in the block is gone after it.

        `size` is how large it will be, if that is known: room is set aside for it.
        """
        async with self._room.leased(tenant_id, size or 0) as lease:
            file = await self._threads.run(
                tenant_id, partial(StagedFile, self._root, tenant_id), discard=StagedFile.close
            )
            writing = WriteBehind(self._threads, tenant_id, file.sync)
            try:
                yield NewFile(writing, self._root, self._room, lease, file)
            finally:
                writing.end(file.close)

    async def delete(
        self, tenant_id: str, path: DrivePath, *, recursive: bool, preconditions: Preconditions
    ) -> None:
        """Delete what is there."""
        check_tenant(tenant_id)
        freed = await self._threads.run(
            tenant_id, partial(_delete, self._root, tenant_id, path, recursive, preconditions)
        )
        self._room.add(tenant_id, -freed)
        if recursive:
            self._room.clear_soon(tenant_id)


class NewFile:
    """A file on its way into its place: written in order, then stored. One call at a time."""

    def __init__(
        self, writing: WriteBehind, root: Path, room: Room, lease: Lease, file: StagedFile
    ) -> None:
        self._writing = writing
        self._root = root
        self._room = room
        self._lease = lease
        self._file = file

    async def write(self, data: bytes | bytearray) -> None:
        """Append."""
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

    async def store(self, path: DrivePath, preconditions: Preconditions) -> Stored:
        """Put the file into its place, if what is there is as demanded."""
        await self._writing.finish()
        placement = Placement(self._root, self._lease.tenant_id, path, self._file.name)
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


def _close_file(opened: OpenFile | Page) -> None:
    if isinstance(opened, OpenFile):
        opened.close()
