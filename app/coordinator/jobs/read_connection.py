"""A connection to the store in SQLite that only reads, without holding up the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from typing_extensions import override

from app.coordinator.database.database import Database
from app.coordinator.database.sqlite import SqliteDatabase
from app.coordinator.jobs.store_reader import StoreReader, T


class ReadConnection(StoreReader):
    """Reads a file, as `StoreReader` says."""

    def __init__(self, path: Path, *, thread_name: str, mapped: int = 0) -> None:
        """`mapped`: bytes of the database that are read without copying them."""
        self._path = path
        self._mapped = mapped
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=thread_name)
        self._db: SqliteDatabase | None = None

    @override
    async def run(self, read: Callable[[Database], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, read)

    @override
    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)
        if self._db is not None:
            # By another thread than its own, which has ended.
            self._db.close()
            self._db = None

    def _read(self, read: Callable[[Database], T]) -> T:
        if self._db is None:
            self._db = SqliteDatabase.open_to_read(self._path, mapped=self._mapped)
        db = self._db
        db.execute("BEGIN")
        try:
            return read(db)
        finally:
            db.execute("COMMIT")
