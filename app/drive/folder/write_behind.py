"""Content goes to the disk while more of it comes, so that the end has little to wait for."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from app.drive.threads import DriveThreads, Strand

#: Bytes after which what has been written is synchronised. Twice as many are not on the disk
#: yet at most.
_SYNC_BYTES: Final = 64 * 1024 * 1024


class WriteBehind:
    """Writes to one file, one call at a time, and synchronises it beside that."""

    def __init__(self, threads: DriveThreads, owner: str, sync: Callable[[], None]) -> None:
        self._writing = Strand(threads, owner)
        self._syncing = Strand(threads, owner)
        self._sync = sync
        self._unsynced = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def strand(self) -> Strand:
        """For other calls with the file; none while one of these runs."""
        return self._writing

    async def write(self, write: Callable[[], None], size: int) -> None:
        """Have a thread write so many bytes. Raises `ApiError`."""
        await self._writing.run(write)
        self._unsynced += size
        if self._unsynced >= _SYNC_BYTES:
            await self._synced()
            self._unsynced = 0
            self._task = asyncio.create_task(self._syncing.run(self._sync), name="drive-sync")

    async def finish(self) -> None:
        """Wait until all of it is on the disk. Raises `ApiError`."""
        await self._synced()
        await self._syncing.run(self._sync)

    def end(self, close: Callable[[], None], *, done: Callable[[], None] = lambda: None) -> None:
        """Have a thread close the file once no other one is in a call with it."""
        if self._task is not None:
            self._task.cancel()
            self._task.add_done_callback(_look_at)
        self._writing.end(lambda: None, done=lambda: self._syncing.end(close, done=done))

    async def _synced(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            try:
                await task
            except asyncio.CancelledError:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                raise


def _look_at(task: "asyncio.Task[None]") -> None:
    """Take what a task raised that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
