"""The store in PostgreSQL, for coordinators of which one leads; see `database.postgres`."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from typing_extensions import override

from app.coordinator.database.database import Database
from app.coordinator.database.postgres import PostgresDatabase, PostgresReader
from app.coordinator.database.postgres_connection import PostgresAddress
from app.coordinator.jobs.changes.witness import Witness
from app.coordinator.jobs.postgres.data_directory import claim
from app.coordinator.jobs.postgres.steps import bring_up
from app.coordinator.jobs.store import Store, nobody
from app.coordinator.jobs.store_reader import StoreReader, T
from app.coordinator.leadership.leadership import Leadership

#: Seconds that may be taken by a statement at the start, or in a reader's thread.
LONG_PATIENCE: Final = 60.0
#: In the place of what tells a file of SQLite from its copies: the note alone tells of those here.
_PLACE: Final = "postgresql"


class PostgresStore(Store):
    """The database of a leader, for its term."""

    def __init__(
        self,
        address: PostgresAddress,
        *,
        leadership: Leadership,
        note: Path,
        patience: float,
        directory: Path | None = None,
        committed: Callable[[frozenset[str]], None] = nobody,
    ) -> None:
        """Open it, and bring it up to date. `directory` is the data directory, which must be
        that of the jobs here, unless it is not asked for. `note` is the file of the `Witness`;
        `patience` is how many seconds a statement may hold up the event loop,
        once: then the connection counts as lost.

        Blocks: call it in a thread. Raises UnusableStore, StoreUnavailable,
        LeadershipLost.
        """
        self._address = address
        self._patience = patience
        db = PostgresDatabase(address, leadership=leadership, patience=LONG_PATIENCE)
        witness = Witness(note)
        try:
            bring_up(db)
            if directory is not None:
                claim(db, directory)
            super().__init__(db, witness=witness, boot=_PLACE, inode=0, committed=committed)
        except BaseException:
            db.close()
            witness.close()
            raise
        self._postgres = db

    @override
    def hurry(self) -> None:
        self._postgres.hurry(self._patience)

    @override
    def reader(self, *, thread_name: str, mapped: int = 0) -> StoreReader:
        return _Reader(self._address, thread_name=thread_name)


class _Reader(StoreReader):
    """Reads with a connection of its own."""

    def __init__(self, address: PostgresAddress, *, thread_name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=thread_name)
        self._db = PostgresReader(address, patience=LONG_PATIENCE)

    @override
    async def run(self, read: Callable[[Database], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, read)

    @override
    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._db.close()

    def _read(self, read: Callable[[Database], T]) -> T:
        with self._db.at_one_moment():
            return read(self._db)
