"""A connection to the store that only reads, without holding up the event loop."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class ReadConnection:
    """Reads in a thread of its own. It sees what is committed.

    Nothing is open or running before the first read.
    """

    def __init__(self, path: Path, *, thread_name: str, mapped: int = 0) -> None:
        """`mapped`: bytes of the database that are read without copying them."""
        self._path = path
        self._mapped = mapped
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=thread_name)
        self._db: sqlite3.Connection | None = None

    async def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `read` does, in one transaction. Raises what it raises, sqlite3.Error."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, read)

    def close(self) -> None:
        """Wait for what is being read, and close the connection; before the store."""
        self._executor.shutdown(cancel_futures=True)
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            uri = f"{self._path.resolve().as_uri()}?mode=ro"
            # Closed by another thread, once this one has ended.
            db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            db.row_factory = sqlite3.Row
            if self._mapped:
                db.execute(f"PRAGMA mmap_size = {self._mapped}")
            self._db = db
        return self._db

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        db = self._open()
        db.execute("BEGIN")
        try:
            return read(db)
        finally:
            db.execute("COMMIT")
