"""SQLite, as a database of the coordinator's.

It is in WAL mode with `synchronous=NORMAL`, so that a commit does not wait for
the disk: it outlives every crash of the coordinator, and after a power cut the
database is whole but may lack the last moments.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from app.coordinator.database.database import Dialect


def _state(path: str) -> str:
    return f"CASE WHEN json_valid(state) THEN json_extract(state, '$.{path}') END"


SQLITE: Final = Dialect(
    state_text=_state,
    state_number=_state,
    state_urls=lambda path: f"json_each({_state(path)}) AS url",
    equals=lambda column: f"{column} = ?",
    contains=lambda column: f"instr({column}, ?) > 0",
    indexed_by=lambda index: f" INDEXED BY {index}",
    # A cross join is made in the order in which it is written.
    in_order=" CROSS JOIN ",
)


class SqliteDatabase(sqlite3.Connection):
    """A connection to a file, in autocommit mode. For one thread at a time."""

    dialect: Final = SQLITE

    @classmethod
    def open(cls, path: Path) -> "SqliteDatabase":
        """Open or make it, to be prepared. Raises sqlite3.Error."""
        return sqlite3.connect(path, isolation_level=None, factory=cls)

    def prepare(self) -> None:
        """Have it as its class says. Raises sqlite3.Error."""
        self.row_factory = sqlite3.Row
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = NORMAL")
        self.execute("PRAGMA foreign_keys = ON")

    @classmethod
    def open_to_read(cls, path: Path, *, mapped: int = 0) -> "SqliteDatabase":
        """Open it to read alone; any thread may close it. `mapped`: bytes that are read without
        copying them. Raises sqlite3.Error."""
        uri = f"{path.resolve().as_uri()}?mode=ro"
        db = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, factory=cls
        )
        db.row_factory = sqlite3.Row
        if mapped:
            db.execute(f"PRAGMA mmap_size = {mapped}")
        return db

    def write(self, statement: str, values: Sequence[Any] = (), /) -> None:
        """Execute a statement."""
        self.execute(statement, values)

    def write_each(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        """Execute a statement with each row of values."""
        self.executemany(statement, rows)

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Do as `Database` says."""
        if durable:
            self.execute("PRAGMA synchronous = FULL")
        try:
            with self._begun():
                yield
        finally:
            if durable:
                self.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def _begun(self) -> Iterator[None]:
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already.
            if self.in_transaction:
                self.execute("ROLLBACK")
            raise
