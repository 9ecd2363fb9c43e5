"""The drive, where the gateway serves it: in a directory or in an object store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aiohttp import web

from app.api.app_keys import DRIVE, TRANSFERS, UPLOADS
from app.configuration.section import SettingsError
from app.drive.bucket.drive import BucketDrive
from app.drive.bucket.room import BucketRoom
from app.drive.bucket.turns import PathTurns
from app.drive.bucket.uploads import BucketUploads
from app.drive.folder.drive import FolderDrive
from app.drive.folder.room import Room
from app.drive.folder.uploads import FolderUploads
from app.drive.folder.usage import Usage
from app.drive.settings import DriveSettings
from app.drive.threads import DriveThreads
from app.drive.transfers import Transfers
from app.gateway.components import SETTINGS
from app.objects.opening import open_object_store
from app.objects.store import DriveRefused, ObjectStore

#: Calls that are not done yet, for each thread; more are refused.
_WAITING_PER_THREAD: Final = 64
#: Threads that count, beside those of requests.
_COUNTING: Final = 2

#: Closed with the application.
STORE: web.AppKey[ObjectStore | None] = web.AppKey("store")


async def drive_context(app: web.Application) -> AsyncIterator[None]:
    """The drive, its threads and its tasks; without a setting there is none."""
    settings = app[SETTINGS].drive
    app[TRANSFERS] = Transfers(most=settings.max_transfers, now=lambda: datetime.now(UTC))
    store = app[STORE]
    if store is not None:
        async with _bucket(app, settings, store):
            yield
    elif settings.dir is not None:
        async with _folder(app, settings, settings.dir):
            yield
    else:
        yield


@asynccontextmanager
async def _folder(app: web.Application, settings: DriveSettings, root: Path) -> AsyncIterator[None]:
    threads = _threads(settings, waits_for="disk")
    usage = Usage(quota=settings.quota, min_free=settings.min_free)
    room = Room(root, threads=threads, usage=usage, lifetime=settings.upload_lifetime)
    app[DRIVE] = FolderDrive(root, threads=threads, room=room)
    app[UPLOADS] = FolderUploads(
        root, threads=threads, room=room, lifetime=settings.upload_lifetime
    )
    counting = asyncio.create_task(room.run(), name="drive-count")
    yield
    await _ended(counting)
    await room.close()
    threads.close()


@asynccontextmanager
async def _bucket(
    app: web.Application, settings: DriveSettings, store: ObjectStore
) -> AsyncIterator[None]:
    threads = _threads(settings, waits_for="store")
    room = BucketRoom(store, quota=settings.quota)
    turns = PathTurns(threads)
    app[DRIVE] = BucketDrive(store, threads=threads, room=room, turns=turns)
    app[UPLOADS] = uploads = BucketUploads(
        store, threads=threads, room=room, places=turns, lifetime=settings.upload_lifetime
    )
    clearing = asyncio.create_task(uploads.run(), name="drive-uploads")
    yield
    await _ended(clearing)
    await room.close()
    threads.close()
    await asyncio.to_thread(store.close)


def open_store(settings: DriveSettings) -> ObjectStore | None:
    """Return the store that the settings name, if they name one; connects to nothing yet.

    Raises SettingsError for what is wrong on this machine.
    """
    if not settings.url:
        return None
    try:
        return open_object_store(
            settings.url,
            endpoint=settings.endpoint,
            credentials=settings.credentials_file,
            # Who asked is told before this program gives up.
            patience=settings.call_timeout / 2,
            connections=settings.max_transfers + settings.threads + _COUNTING,
        )
    except DriveRefused as error:
        raise SettingsError([f"{settings.variable('url')}: {error.strerror}."]) from None


def _threads(settings: DriveSettings, *, waits_for: str) -> DriveThreads:
    return DriveThreads(
        threads=settings.threads,
        waiting=settings.threads * _WAITING_PER_THREAD,
        share=settings.max_threads_share,
        patience=settings.call_timeout,
        name="drive",
        waits_for=waits_for,
    )


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
