"""Moves the store of a stopped coordinator from SQLite to PostgreSQL, or back."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import psycopg2

from app.coordinator.database.leader_table import LeaderTable
from app.coordinator.database.postgres import PostgresDatabase
from app.coordinator.database.postgres_connection import reason
from app.coordinator.database.sqlite import SqliteDatabase
from app.coordinator.jobs.moving import Moved, NotMoved, Progress, copy_all
from app.coordinator.jobs.postgres.steps import STEPS as SCHEMA_STEPS
from app.coordinator.jobs.postgres.steps import bring_up, version_of
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.steps.store_steps import STEPS
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.ownership.candidacy import address_of
from app.coordinator.ownership.data_directory import sole_owner
from app.coordinator.ownership.lease import Lease
from app.coordinator.ownership.state import sqlite_path
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig

#: Who leads meanwhile.
_HOLDER: Final = "move-store"
#: Seconds for which no coordinator can lead behind a move that was killed.
_LEASE: Final = 60.0
#: Seconds that one of its statements may take, and one of its lease.
_PATIENCE: Final = 300.0
_LEASE_PATIENCE: Final = 10.0


def move_to_postgresql(config: CoordinatorConfig, *, progress: Progress) -> Moved:
    """Copy the store in SQLite into an empty schema of PostgreSQL: all of it, or nothing.

    The file stays as it is. Raises NotMoved, BadConfig, UnusableStore,
    StoreUnavailable, LeadershipLost.
    """
    path = sqlite_path(config.data_dir)
    with sole_owner(config), _led(config) as (target, _), _refusals():
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
    path = sqlite_path(config.data_dir)
    with sole_owner(config), _led(config) as (source, lease), _refusals():
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
            # Nobody else has changed what was read.
            lease.check()
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
def _led(config: CoordinatorConfig) -> Iterator[tuple[PostgresDatabase, Lease]]:
    """The database, which no coordinator leads meanwhile. Raises NotMoved, StoreUnavailable."""
    address = address_of(config)
    with closing(LeaderTable(address, patience=_PATIENCE)) as table:
        table.prepare()
    lease = Lease(
        LeaderTable(address, patience=_LEASE_PATIENCE),
        seconds=_LEASE,
        term_file=TermFile.of(config.data_dir),
        # What is written asks the lease, and so does whoever asks it last.
        lost=lambda reason: None,
    )
    with closing(lease):
        try:
            leader = lease.try_take(holder=_HOLDER, address="")
        except (OSError, ValueError) as error:
            raise BadConfig(f"{config.variable('data_dir')}: {error}") from None
        if leader is not None:
            who = leader.address or leader.holder
            raise NotMoved(f"a coordinator leads with this database: {who}. Stop all of them first")
        lease.keep()
        with closing(PostgresDatabase(address, leadership=lease, patience=_PATIENCE)) as db:
            yield db, lease


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise NotMoved where a database refuses what is copied."""
    try:
        yield
    except psycopg2.Error as error:
        raise NotMoved(f"PostgreSQL refused: {reason(error)}") from None
    except sqlite3.Error as error:
        raise NotMoved(f"SQLite refused: {error}") from None


def _remove(fresh: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal", ".epoch"):
        fresh.with_name(f"{fresh.name}{end}").unlink(missing_ok=True)
    fresh.with_suffix(".epoch").unlink(missing_ok=True)
