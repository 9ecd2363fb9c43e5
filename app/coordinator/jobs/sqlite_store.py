"""The store in SQLite, for one coordinator at a time."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from app.coordinator.database.sqlite import SqliteDatabase
from app.coordinator.jobs.changes.witness import Witness
from app.coordinator.jobs.read_connection import ReadConnection
from app.coordinator.jobs.steps.store_steps import bring_up, lack_of_room
from app.coordinator.jobs.store import Store, nobody
from app.coordinator.jobs.store_reader import StoreReader
from app.coordinator.storage.process_identity import read_boot_id


class SqliteStore(Store):
    """The database in a file."""

    _db: SqliteDatabase

    def __init__(self, path: Path, *, committed: Callable[[frozenset[str]], None] = nobody) -> None:
        """Open or make it, see `store_steps`. Raises UnusableStore, sqlite3.Error."""
        self._path = path
        db = SqliteDatabase.open(path)
        witness = Witness(path.with_suffix(".epoch"))
        try:
            db.prepare()
            bring_up(db, path)
            # What steps have replaced must not stay in the log either.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            super().__init__(
                db,
                witness=witness,
                boot=read_boot_id(),
                inode=path.stat().st_ino,
                committed=committed,
            )
        except BaseException as error:
            db.close()
            witness.close()
            if isinstance(error, sqlite3.OperationalError):
                # SQLite calls it a "disk I/O error" where not even its own files have room.
                raise lack_of_room(path, error) or error from None
            raise

    @override
    def reader(self, *, thread_name: str, mapped: int = 0) -> StoreReader:
        return ReadConnection(self._path, thread_name=thread_name, mapped=mapped)
