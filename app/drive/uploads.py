"""Resumable uploads: made, gone on with, finished and ended, for one request at a time each."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from app.drive import placing
from app.drive.disk_threads import DiskThreads
from app.drive.paths import DrivePath
from app.drive.placing import Stored, placed
from app.drive.room import Room
from app.drive.tenants import check_tenant
from app.drive.upload_files import OpenUpload, UploadInfo, UploadState, create, peek
from app.drive.write_behind import WriteBehind
from app.errors import UPLOAD_LOCKED, ApiError

#: Bytes of an id.
_ID_BYTES: Final = 16
#: Seconds that a request which is taken over from has to end.
_PATIENCE: Final = 5.0


@dataclass(slots=True, eq=False)
class _Writer:
    """A request that has an upload."""

    limit: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    #: Whether it is within its limit, which can be changed then.
    running: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Have the request end."""
        if self.running and not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())


class Uploads:
    """The unfinished uploads of all tenants. Raises `ApiError`.

    A request ends another one for the same upload that this process serves: its
    client has lost it, and comes back. What another replica serves is
    `UPLOAD_LOCKED`.
    """

    def __init__(self, root: Path, *, threads: DiskThreads, room: Room, lifetime: float) -> None:
        self._root = root
        self._threads = threads
        #: Where room for files is asked for.
        self.room = room
        self._lifetime = lifetime
        self._writers: dict[tuple[str, str], _Writer] = {}

    @property
    def max_size(self) -> int:
        """Bytes that a file may have; 0 is no limit."""
        return self.room.quota

    async def create(
        self,
        tenant_id: str,
        path: DrivePath,
        *,
        length: int | None,
        metadata: str,
        if_match: str | None,
        if_none_match: str | None,
    ) -> UploadState:
        """Make an upload, if there is room for the file."""
        check_tenant(tenant_id)
        placing.check_writable(path)
        info = UploadInfo(
            upload_id=secrets.token_urlsafe(_ID_BYTES),
            path=str(path),
            length=length,
            created_at=time.time(),
            metadata=metadata,
            if_match=if_match,
            if_none_match=if_none_match,
        )
        await self._threads.run(
            tenant_id,
            partial(placing.check_destination, self._root, tenant_id, path, info.preconditions),
        )
        async with self.room.leased(tenant_id, length or 0) as lease:
            await self._threads.run(tenant_id, partial(create, self._root, tenant_id, info))
            lease.growth = length or 0
            self.room.awaits(tenant_id, lease.growth)
        return UploadState(info, 0, info.created_at + self._lifetime)

    async def state(self, tenant_id: str, upload_id: str) -> UploadState:
        """Return how far an upload is; one that only lacks its place is put there."""
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

    async def remove(self, tenant_id: str, upload_id: str) -> None:
        """End an upload; what has come of it goes."""
        async with self.writing(tenant_id, upload_id) as upload:
            await upload.remove()

    @asynccontextmanager
    async def writing(self, tenant_id: str, upload_id: str) -> AsyncIterator["UploadWriting"]:
        """Have an upload alone. Another request for it raises `UPLOAD_LOCKED` in this block."""
        check_tenant(tenant_id)
        key = (tenant_id, upload_id)
        await self._take_over(key)
        writer = self._writers[key] = _Writer()

        def gone() -> None:
            del self._writers[key]
            writer.gone.set()

        upload: UploadWriting | None = None
        try:
            async with writer.limit:
                writer.running = True
                opened = await self._threads.run(
                    tenant_id,
                    partial(OpenUpload, self._root, tenant_id, upload_id, lifetime=self._lifetime),
                    discard=OpenUpload.close,
                )
                upload = UploadWriting(self._threads, opened, self.room, tenant_id)
                yield upload
        except TimeoutError:
            if not writer.limit.expired():
                raise
            raise ApiError(
                UPLOAD_LOCKED, "Another request for this upload has taken over.", retry_after=1
            ) from None
        finally:
            writer.running = False
            if upload is None:
                gone()
            else:
                upload.end(gone)

    async def _take_over(self, key: tuple[str, str]) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() + _PATIENCE
        while (other := self._writers.get(key)) is not None:
            other.stop()
            try:
                async with asyncio.timeout_at(latest):
                    await other.gone.wait()
            except TimeoutError:
                raise ApiError(UPLOAD_LOCKED, retry_after=1) from None


class UploadWriting:
    """An upload that a request has alone. One call at a time."""

    def __init__(
        self, threads: DiskThreads, opened: OpenUpload, room: Room, tenant_id: str
    ) -> None:
        self._writing = WriteBehind(threads, tenant_id, opened.sync)
        self._opened = opened
        self._room = room
        self._tenant_id = tenant_id
        self._stored: Stored | None = None
        self._cut_to: int | None = None

    @property
    def finished(self) -> bool:
        """Whether the file is in its place."""
        return self._opened.finished

    @property
    def info(self) -> UploadInfo:
        """What is known about it."""
        return self._opened.info

    @property
    def stored(self) -> Stored | None:
        """The file, if this request has put it into its place."""
        return self._stored

    async def state(self) -> UploadState:
        """Return how far it is."""
        return await self._writing.strand.run(self._opened.state)

    async def set_length(self, length: int) -> None:
        """Note how many bytes the file has, which were not known. Raises `ApiError`."""
        offset = (await self.state()).offset
        async with self._room.leased(self._tenant_id, max(0, length - offset)) as lease:
            await self._writing.strand.run(partial(self._opened.set_length, length))
            lease.growth = lease.size
            self._room.awaits(self._tenant_id, lease.size)

    async def write(
        self, data: bytes | bytearray, *, check: Callable[[bytes | bytearray], None]
    ) -> None:
        """Append; `check` is given the data in a thread before."""

        def write() -> None:
            check(data)
            self._room.look(len(data))
            self._opened.write(data)

        if self.info.length is not None:
            await self._room.check_quota(self._tenant_id)
            await self._writing.write(write, len(data))
            self._room.awaits(self._tenant_id, -len(data))
            return
        async with self._room.leased(self._tenant_id, len(data)) as lease:
            await self._writing.write(write, len(data))
            lease.growth = len(data)

    def cut_at_end(self, offset: int) -> None:
        """Have what has come behind an offset forgotten when the request is over."""
        self._cut_to = offset

    def end(self, done: Callable[[], None]) -> None:
        """Let others have the upload; `done` is called then."""
        self._writing.end(self._close, done=done)

    def _close(self) -> None:
        try:
            if self._cut_to is not None and not self._opened.finished:
                self._opened.cut(self._cut_to)
        finally:
            self._opened.close()

    async def sync(self) -> None:
        """Wait until what has come is on the disk."""
        await self._writing.finish()

    async def finish_if_complete(self) -> None:
        """Put the file into its place if all of it has come."""
        placement = await self._writing.strand.run(self._opened.placement)
        if placement is not None:
            self._stored = await placed(self._writing.strand, placement, self._opened.put)
            self._room.moved(self._tenant_id, self._stored.version.size)
            self._room.add(self._tenant_id, -self._stored.freed)

    async def remove(self) -> None:
        """End the upload."""
        length = 0 if self._opened.finished else self.info.length or 0
        lacking = max(0, length - (await self.state()).offset)
        await self._writing.strand.run(self._opened.remove)
        self._room.add(self._tenant_id, -length)
        self._room.awaits(self._tenant_id, -lacking)
