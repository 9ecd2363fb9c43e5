"""Moves the store of a stopped coordinator from SQLite to PostgreSQL, or back."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from typing_extensions import override

from app.coordinator.database.leader_table import LeaderTable
from app.coordinator.database.postgres import PostgresDatabase
from app.coordinator.database.sqlite import SqliteDatabase
from app.coordinator.failures import LeadershipLost
from app.coordinator.jobs.moving import Moved, NotMoved, Progress, copy_all
from app.coordinator.jobs.postgres.steps import STEPS as SCHEMA_STEPS
from app.coordinator.jobs.postgres.steps import bring_up, version_of
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.steps.store_steps import STEPS
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.ownership.candidacy import address_of
from app.coordinator.ownership.data_directory import sole_owner
from app.coordinator.ownership.state import sqlite_path
from app.coordinator.settings.coordinator import CoordinatorConfig

#: Seconds that the move may take: for so long no coordinator can lead.
_LONGEST: Final = 3600.0
#: Seconds that one of its statements may take.
_PATIENCE: Final = 300.0


@dataclass(frozen=True, slots=True)
class _Term(Leadership):
    """The lead, taken for the time of a move."""

    number: int
    deadline: float

    @property
    @override
    def term(self) -> int:
        return self.number

    @override
    def check(self) -> None:
        if time.monotonic() >= self.deadline:
            raise LeadershipLost("the move took too long")

    @override
    def lose(self, reason: str) -> None:
        raise LeadershipLost(reason)


def move_to_postgresql(config: CoordinatorConfig, *, progress: Progress) -> Moved:
    """Copy the store in SQLite into an empty schema of PostgreSQL: all of it, or nothing.

    The file stays as it is. Raises NotMoved, BadConfig, UnusableStore,
    StoreUnavailable, LeadershipLost.
    """
    with sole_owner(config), _led(config) as target:
        path = sqlite_path(config.data_dir)
        if not path.is_file():
            raise NotMoved(f"there is no store in SQLite: {path}")
        bring_up(target)
        with closing(SqliteDatabase.open(path)) as source:
            source.row_factory = sqlite3.Row
            _check_version(path.name, source.execute("PRAGMA user_version").fetchone()[0])
            source.execute("BEGIN")
            return copy_all(source, target, progress=progress)


def move_to_sqlite(config: CoordinatorConfig, *, progress: Progress) -> Moved:
    """Copy the store in PostgreSQL into SQLite: all of it, or nothing. The schema stays as it is.

    Raises NotMoved, BadConfig, UnusableStore, StoreUnavailable, LeadershipLost.
    """
    with sole_owner(config), _led(config) as source:
        path = sqlite_path(config.data_dir)
        if path.exists():
            raise NotMoved(f"there is a store in SQLite: {path}. Move it away first")
        if (version := version_of(source)) != len(SCHEMA_STEPS):
            raise NotMoved(
                f"the schema has version {version}, and this version moves version"
                f" {len(SCHEMA_STEPS)}; start its coordinator once, and stop it"
            )
        fresh = path.with_name(f"{path.name}.moving")
        _remove(fresh)
        try:
            SqliteStore(fresh).close()
            with closing(SqliteDatabase.open(fresh)) as target:
                target.prepare()
                moved = copy_all(source, target, progress=progress)
                target.execute("PRAGMA journal_mode = DELETE")
            os.replace(fresh, path)
        finally:
            _remove(fresh)
        return moved


def _check_version(name: str, version: int) -> None:
    if version != len(STEPS):
        raise NotMoved(
            f"{name} has version {version}, and this version moves version {len(STEPS)};"
            " start its coordinator once, and stop it"
        )


@contextmanager
def _led(config: CoordinatorConfig) -> Iterator[PostgresDatabase]:
    """The database, which no coordinator leads meanwhile. Raises NotMoved, StoreUnavailable."""
    address = address_of(config)
    terms = TermFile.of(config.data_dir)
    with closing(LeaderTable(address, patience=_PATIENCE)) as table:
        table.prepare()
        term = table.take(holder="move-store", address="", seconds=_LONGEST, known=terms.read())
        if term is None:
            raise NotMoved(
                f"a coordinator leads with this database: {table.read().address or 'move-store'}."
                " Stop all of them first"
            )
        try:
            terms.raise_to(term)
            leadership = _Term(term, time.monotonic() + _LONGEST)
            with closing(
                PostgresDatabase(address, leadership=leadership, patience=_PATIENCE)
            ) as db:
                yield db
        finally:
            table.release(term)


def _remove(fresh: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal", ".epoch"):
        fresh.with_name(f"{fresh.name}{end}").unlink(missing_ok=True)
    fresh.with_suffix(".epoch").unlink(missing_ok=True)
