"""Resumable uploads to a store: made, gone on with, finished and ended."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import structlog
from typing_extensions import override

from app.drive.bucket import upload_parts, writing
from app.drive.bucket.keys import check_not_hidden, key_of
from app.drive.bucket.room import BucketRoom
from app.drive.bucket.turns import PathTurns
from app.drive.bucket.upload_parts import OpenUpload
from app.drive.bucket.upload_records import Records, tenants_with_uploads
from app.drive.drive import Stored
from app.drive.paths import DrivePath, check_writable
from app.drive.tenants import check_tenant
from app.drive.threads import DriveThreads, Strand
from app.drive.uploads import UploadInfo, Uploads, UploadState, UploadTurns, UploadWriting
from app.errors import ApiError
from app.objects.store import ObjectStore

log = structlog.get_logger()

#: Seconds between two looks for uploads that have expired.
_INTERVAL: Final = 3600.0
#: Whose calls are those for all tenants.
_NOBODY: Final = ""


class BucketUploads(Uploads):
    """The unfinished uploads of all tenants. `run` clears away what has expired.

    Replicas do not wait for each other: two that take the same upload at once
    write the same parts, and the shorter of both ends may count.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        threads: DriveThreads,
        room: BucketRoom,
        places: PathTurns,
        lifetime: float,
    ) -> None:
        self._store = store
        self._threads = threads
        self._room = room
        self._places = places
        self._lifetime = lifetime
        self._turns = UploadTurns()

    @property
    @override
    def max_size(self) -> int:
        return self._room.quota

    @override
    async def create(self, tenant_id: str, path: DrivePath, info: UploadInfo) -> UploadState:
        length = info.length or 0
        check_tenant(tenant_id)
        check_writable(path)
        check_not_hidden(path)
        await self._threads.run(
            tenant_id,
            partial(writing.check_destination, self._store, tenant_id, path, info.preconditions),
        )
        async with self._room.leased(tenant_id, length) as lease:
            await self._threads.run(
                tenant_id, partial(upload_parts.create, self._store, tenant_id, info)
            )
            lease.growth = length
        return UploadState(info, 0, info.expires_at(info.created_at, self._lifetime))

    @override
    async def state(self, tenant_id: str, upload_id: str) -> UploadState:
        async with self.writing(tenant_id, upload_id) as upload:
            await upload.finish_if_complete()
            return await upload.state()

    @override
    async def remove(self, tenant_id: str, upload_id: str) -> None:
        async with self.writing(tenant_id, upload_id) as upload:
            await upload.remove()

    @override
    @asynccontextmanager
    async def writing(
        self, tenant_id: str, upload_id: str, *, whole: bool = False
    ) -> AsyncIterator["_BucketWriting"]:
        check_tenant(tenant_id)
        async with self._turns.alone(tenant_id, upload_id) as turn:
            opened = await self._threads.run(
                tenant_id,
                partial(
                    OpenUpload,
                    self._store,
                    tenant_id,
                    upload_id,
                    lifetime=self._lifetime,
                    whole=whole,
                ),
            )
            place = key_of(self._store, tenant_id, DrivePath.of(opened.info.path))
            upload = _BucketWriting(
                Strand(self._threads, tenant_id),
                opened,
                self._room,
                tenant_id,
                place=place,
                places=self._places,
            )
            turn.end = upload.end
            yield upload

    async def run(self) -> None:
        """Remove uploads that have expired, over and over, until cancelled."""
        while True:
            try:
                for tenant_id in await self._threads.run(
                    _NOBODY, partial(tenants_with_uploads, self._store)
                ):
                    expired = await self._threads.run(_NOBODY, partial(self.clear, tenant_id))
                    if expired:
                        log.info("drive_uploads_expired", tenant_id=tenant_id, uploads=expired)
            except ApiError as error:
                # The store may be away: what has expired goes later.
                log.warning("drive_uploads_not_cleared", reason=error.message)
            except Exception:
                # What others have put there must not end the clearing for good.
                log.exception("drive_uploads_not_cleared")
            await asyncio.sleep(_INTERVAL)

    def clear(self, tenant_id: str, *, now: float | None = None) -> int:
        """Remove what has expired of a tenant; returns how many uploads. Blocks, for threads."""
        records, expired = Records(self._store, tenant_id), 0
        now = time.time() if now is None else now
        for upload_id, record, changed_at in records.unfinished():
            if record is None:
                # It cannot be read: nobody can go on with it.
                if changed_at + self._lifetime <= now:
                    records.remove(upload_id)
            elif record.info.expires_at(changed_at, self._lifetime) <= now:
                upload_parts.abort(self._store, tenant_id, record)
                expired += 1
        over = [each for each, ended in records.finished() if ended + self._lifetime <= now]
        for upload_id in over:
            records.remove_done(upload_id)
        return expired


class _BucketWriting(UploadWriting):
    """An upload, open."""

    def __init__(
        self,
        strand: Strand,
        opened: OpenUpload,
        room: BucketRoom,
        tenant_id: str,
        *,
        place: str,
        places: PathTurns,
    ) -> None:
        self._strand = strand
        self._opened = opened
        self._room = room
        self._tenant_id = tenant_id
        self._place = place
        self._places = places
        self._stored: Stored | None = None

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
        return await self._strand.run(self._opened.state)

    @override
    async def set_length(self, length: int) -> None:
        offset = (await self.state()).offset
        async with self._room.leased(self._tenant_id, max(0, length - offset)) as lease:
            await self._strand.run(partial(self._opened.set_length, length))
            lease.growth = lease.size

    @override
    async def write(
        self, data: bytes | bytearray, *, check: Callable[[bytes | bytearray], None]
    ) -> None:
        def write() -> None:
            check(data)
            self._opened.write(data)

        if self._opened.info.length is not None:
            await self._room.check(self._tenant_id)
            await self._strand.run(write)
            return
        async with self._room.leased(self._tenant_id, len(data)) as lease:
            await self._strand.run(write)
            lease.growth = len(data)

    def end(self, done: Callable[[], None]) -> None:
        """Let others have the upload; `done` is called then."""
        self._strand.end(self._opened.close, done=done)

    @override
    async def sync(self) -> None:
        await self._strand.run(self._opened.sync)

    @override
    async def finish_if_complete(self) -> None:
        if self._opened.finished or self._opened.offset != self._opened.info.length:
            return
        async with self._places.turn(self._tenant_id, self._place) as strand:
            self._stored = await strand.run(self._opened.finish)
        if self._stored is not None:
            self._room.add(self._tenant_id, -self._stored.freed)

    async def remove(self) -> None:
        """End the upload."""
        length = 0 if self._opened.finished else self._opened.info.length or 0
        await self._strand.run(self._opened.remove)
        self._room.add(self._tenant_id, -length)
