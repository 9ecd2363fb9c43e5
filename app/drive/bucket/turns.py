"""Who puts a file into its place: one request of this process at a time for each path."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from app.drive.threads import DriveThreads, Strand


class PathTurns:
    """Replicas do not wait for each other: where it matters, the store is told the condition."""

    def __init__(self, threads: DriveThreads) -> None:
        self._threads = threads
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, owner: str, key: str) -> AsyncIterator[Strand]:
        """Have a path alone: also while a thread is still in a call that nobody waits for.

        What changes it is called through what is yielded.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        await lock.acquire()
        strand = Strand(self._threads, owner)
        try:
            yield strand
        finally:
            strand.end(lambda: None, done=lock.release)
