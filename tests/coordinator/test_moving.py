"""A stopped store is copied from SQLite into PostgreSQL and back, all of it or nothing."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.coordinator.database.sqlite import SqliteDatabase
from app.coordinator.jobs import moving
from app.coordinator.jobs.moving import TABLES, NotMoved
from app.coordinator.jobs.postgres_store import PostgresStore
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.store import Store, UsedKey
from app.coordinator.ownership.candidacy import address_of
from app.coordinator.ownership.data_directory import shared_owner
from app.coordinator.ownership.moving import move_to_postgresql, move_to_sqlite
from app.coordinator.ownership.state import sqlite_path
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig
from tests.coordinator.harness import config_for
from tests.coordinator.stores import PATIENCE, take_term
from tests.coordinator.test_both_stores import full, save


@pytest.fixture
def config(tmp_path: Path, postgres_dsn: str) -> CoordinatorConfig:
    return config_for(tmp_path, database_dsn=postgres_dsn)


def fill(store: Store) -> None:
    """Rows in every table."""
    ended = replace(full("ended"), status=Status.FAILED, ended_at=9)
    save(store, full("a"), full("with\0nul"), ended, full("gone"))
    with store.transaction():
        store.delete_job("t", "gone", now=1)
        store.save_kept_bytes("ended", 1, 2)
        store.save_drain("n", "why")
        store.save_key("t", "k", UsedKey(b"\0\xff", "a"), now=1, since=0)


def rows_of(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(path)) as db:
        return {
            table.name: db.execute(
                f"SELECT {', '.join(table.columns)} FROM {table.name}"
                f" ORDER BY {', '.join(table.key)}"
            ).fetchall()
            for table in TABLES
        }


def test_there_and_back(
    config: CoordinatorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_BATCH", 2)
    path = sqlite_path(tmp_path)
    with closing(SqliteStore(path)) as store:
        fill(store)
    with closing(SqliteDatabase.open(path)) as db:
        assert all(db.execute(f"SELECT 1 FROM {table.name}").fetchone() for table in TABLES), (
            "a table without rows proves nothing"
        )
    told: list[tuple[str, int, int]] = []
    moved = move_to_postgresql(config, progress=lambda *what: told.append(what))
    assert moved.rows["jobs"] == 3
    assert ("jobs", 2, 3) in told
    with closing(open_shared(config)) as store:
        assert store.job("t", "a") == full("a")
        assert [job.job_id for job in store.unfinished()] == ["a", "withnul"]
    take_term(config.database_dsn, seconds=0.001, schema=config.database_schema)
    before = rows_of(path)
    with pytest.raises(NotMoved, match="Move it away"):
        move_to_sqlite(config, progress=lambda *_: None)
    path.rename(tmp_path / "before.db")
    move_to_sqlite(config, progress=lambda *_: None)
    after = rows_of(path)
    assert after == {
        name: [
            tuple(each.replace("\0", "") if isinstance(each, str) else each for each in row)
            for row in rows
        ]
        for name, rows in before.items()
    }
    with closing(SqliteStore(path)) as store:
        assert store.job("t", "a") == full("a")


def open_shared(config: CoordinatorConfig) -> Store:
    return PostgresStore(
        address_of(config),
        leadership=take_term(config.database_dsn, schema=config.database_schema),
        note=config.data_dir / "note",
        patience=PATIENCE,
    )


def test_what_is_in_use_is_not_moved(config: CoordinatorConfig, tmp_path: Path) -> None:
    SqliteStore(sqlite_path(tmp_path)).close()
    with shared_owner(config), pytest.raises(BadConfig, match="another coordinator is using"):
        move_to_postgresql(config, progress=lambda *_: None)
    take_term(config.database_dsn, schema=config.database_schema)
    with pytest.raises(NotMoved, match="a coordinator leads with this database"):
        move_to_postgresql(config, progress=lambda *_: None)


def test_another_version_and_a_target_with_rows_are_refused(
    config: CoordinatorConfig, tmp_path: Path
) -> None:
    path = sqlite_path(tmp_path)
    with pytest.raises(NotMoved, match="no store in SQLite"):
        move_to_postgresql(config, progress=lambda *_: None)
    with closing(SqliteStore(path)) as store:
        fill(store)
    move_to_postgresql(config, progress=lambda *_: None)
    with pytest.raises(NotMoved, match="not empty"):
        move_to_postgresql(config, progress=lambda *_: None)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 3")
    with pytest.raises(NotMoved, match="has version 3"):
        move_to_postgresql(config, progress=lambda *_: None)


def test_a_copy_that_differs_is_none(
    config: CoordinatorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sqlite_path(tmp_path)
    with closing(SqliteStore(path)) as store:
        fill(store)
    with monkeypatch.context() as patch:
        digests = iter([(1, "x"), (1, "y")])
        patch.setattr(moving, "_digest", lambda *_: next(digests))
        with pytest.raises(NotMoved, match="digest"):
            move_to_postgresql(config, progress=lambda *_: None)
    # Nothing is there, and it can be done again.
    assert move_to_postgresql(config, progress=lambda *_: None).rows["jobs"] == 3
