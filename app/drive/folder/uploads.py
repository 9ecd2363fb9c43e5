"""Resumable uploads to a folder: made, gone on with, finished and ended."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from typing_extensions import override

from app.drive.drive import Stored
from app.drive.folder import placing
from app.drive.folder.placing import placed
from app.drive.folder.room import Room
from app.drive.folder.upload_files import OpenUpload, create, peek
from app.drive.folder.write_behind import WriteBehind
from app.drive.paths import DrivePath, check_writable
from app.drive.tenants import check_tenant
from app.drive.threads import DriveThreads
from app.drive.uploads import UploadInfo, Uploads, UploadState, UploadTurns, UploadWriting
from app.errors import UPLOAD_LOCKED, ApiError


class FolderUploads(Uploads):
    """The unfinished uploads of all tenants; what another replica serves is `UPLOAD_LOCKED`."""

    def __init__(self, root: Path, *, threads: DriveThreads, room: Room, lifetime: float) -> None:
        self._root = root
        self._threads = threads
        #: Where room for files is asked for.
        self.room = room
        self._lifetime = lifetime
        self._turns = UploadTurns()

    @property
    @override
    def max_size(self) -> int:
        return self.room.quota

    @override
    async def create(self, tenant_id: str, path: DrivePath, info: UploadInfo) -> UploadState:
        length = info.length or 0
        check_tenant(tenant_id)
        check_writable(path)
        await self._threads.run(
            tenant_id,
            partial(placing.check_destination, self._root, tenant_id, path, info.preconditions),
        )
        async with self.room.leased(tenant_id, length) as lease:
            await self._threads.run(tenant_id, partial(create, self._root, tenant_id, info))
            lease.growth = length
            self.room.awaits(tenant_id, lease.growth)
        return UploadState(info, 0, info.created_at + self._lifetime)

    @override
    async def state(self, tenant_id: str, upload_id: str) -> UploadState:
        try:
            async with self.writing(tenant_id, upload_id) as upload:
                await upload.finish_if_complete()
                return await upload.state()
        except ApiError as error:
            if error.kind is not UPLOAD_LOCKED:
                raise
            return await self._threads.run(
                tenant_id, partial(peek, self._root, tenant_id, upload_id, lifetime=self._lifetime)
            )

    @override
    async def remove(self, tenant_id: str, upload_id: str) -> None:
        async with self.writing(tenant_id, upload_id) as upload:
            await upload.remove()

    @override
    @asynccontextmanager
    async def writing(
        self, tenant_id: str, upload_id: str, *, whole: bool = False
    ) -> AsyncIterator["FolderUploadWriting"]:
        check_tenant(tenant_id)
        async with self._turns.alone(tenant_id, upload_id) as turn:
            opened = await self._threads.run(
                tenant_id,
                partial(OpenUpload, self._root, tenant_id, upload_id, lifetime=self._lifetime),
                discard=OpenUpload.close,
            )
            upload = FolderUploadWriting(self._threads, opened, self.room, tenant_id, whole=whole)
            turn.end = upload.end
            yield upload


class FolderUploadWriting(UploadWriting):
    """An upload's file, open."""

    def __init__(
        self,
        threads: DriveThreads,
        opened: OpenUpload,
        room: Room,
        tenant_id: str,
        *,
        whole: bool,
    ) -> None:
        self._writing = WriteBehind(threads, tenant_id, opened.sync)
        self._opened = opened
        self._room = room
        self._tenant_id = tenant_id
        self._stored: Stored | None = None
        self._cut_to = opened.opened_at if whole else None

    @property
    @override
    def finished(self) -> bool:
        return self._opened.finished

    @property
    @override
    def stored(self) -> Stored | None:
        return self._stored

    @override
    async def state(self) -> UploadState:
        return await self._writing.strand.run(self._opened.state)

    @override
    async def set_length(self, length: int) -> None:
        offset = (await self.state()).offset
        async with self._room.leased(self._tenant_id, max(0, length - offset)) as lease:
            await self._writing.strand.run(partial(self._opened.set_length, length))
            lease.growth = lease.size
            self._room.awaits(self._tenant_id, lease.size)

    @override
    async def write(
        self, data: bytes | bytearray, *, check: Callable[[bytes | bytearray], None]
    ) -> None:

        def write() -> None:
            check(data)
            self._room.look(len(data))
            self._opened.write(data)

        if self._opened.info.length is not None:
            await self._room.check_quota(self._tenant_id)
            await self._writing.write(write, len(data))
            self._room.awaits(self._tenant_id, -len(data))
            return
        async with self._room.leased(self._tenant_id, len(data)) as lease:
            await self._writing.write(write, len(data))
            lease.growth = len(data)

    def end(self, done: Callable[[], None]) -> None:
        """Let others have the upload; `done` is called then."""
        self._writing.end(self._close, done=done)

    def _close(self) -> None:
        try:
            if self._cut_to is not None and not self._opened.finished:
                self._opened.cut(self._cut_to)
        finally:
            self._opened.close()

    @override
    async def sync(self) -> None:
        await self._writing.finish()
        self._cut_to = None

    @override
    async def finish_if_complete(self) -> None:
        placement = await self._writing.strand.run(self._opened.placement)
        if placement is not None:
            self._stored = await placed(self._writing.strand, placement, self._opened.put)
            self._room.moved(self._tenant_id, self._stored.version.size)
            self._room.add(self._tenant_id, -self._stored.freed)

    async def remove(self) -> None:
        """End the upload."""
        length = 0 if self._opened.finished else self._opened.info.length or 0
        lacking = max(0, length - (await self.state()).offset)
        await self._writing.strand.run(self._opened.remove)
        self._room.add(self._tenant_id, -length)
        self._room.awaits(self._tenant_id, -lacking)
