"""Lists jobs without holding up the event loop: a count over a million jobs takes its time."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from app.coordinator.jobs.listing import Filters, JobsPage, Order, list_jobs

#: Bytes of the database that are read without copying them, if it is that large.
_MAPPED: Final = 1024**3


class JobLister:
    """Reads with a connection and in a thread of its own. It sees what is committed.

    Nothing is open or running before the first page.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="job lists")
        self._db: sqlite3.Connection | None = None

    async def page(
        self, tenant_id: str, *, filters: Filters, order: Order, page_size: int, page_token: str
    ) -> JobsPage:
        """A page, as `list_jobs` makes it. Raises InvalidArgument, sqlite3.Error."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._read, tenant_id, filters, order, page_size, page_token
        )

    def close(self) -> None:
        """Wait for the page that is being read, and close the connection; before the store."""
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
            db.execute(f"PRAGMA mmap_size = {_MAPPED}")
            self._db = db
        return self._db

    def _read(
        self, tenant_id: str, filters: Filters, order: Order, page_size: int, page_token: str
    ) -> JobsPage:
        db = self._open()
        # The count and the page belong together.
        db.execute("BEGIN")
        try:
            return list_jobs(
                db,
                tenant_id,
                filters=filters,
                order=order,
                page_size=page_size,
                page_token=page_token,
            )
        finally:
            db.execute("COMMIT")
