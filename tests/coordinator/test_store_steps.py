"""The steps of the store and of a job's directory: all of them or none, with a copy beside it."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.coordinator import BadConfig
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.steps.store_steps import STEPS, StoreStep, UnusableStore, bring_up
from app.coordinator.storage import job_directory_steps as jobdir_steps
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.job_directory_steps import NewerFormat
from app.coordinator.storage.locks import Locked, locked
from app.files.json_files import read_json
from tests.coordinator.harness import running


def second(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE second (number INTEGER) STRICT")
    db.execute("INSERT INTO second VALUES (2)")


def third(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE second ADD COLUMN three INTEGER")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of version 1 in which a node is drained."""
    store = tmp_path / "coordinator.db"
    with closing(sqlite3.connect(store, isolation_level=None)) as db:
        bring_up(db, store, STEPS[:1])
        db.execute("INSERT INTO drained_nodes VALUES ('n', 'why')")
    return store


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        yield db


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        number: int = db.execute("PRAGMA user_version").fetchone()[0]
        return number


def drained(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT node_id, reason FROM drained_nodes").fetchall()


def test_outstanding_steps_are_taken_and_the_store_before_them_is_kept(
    path: Path, db: sqlite3.Connection
) -> None:
    # This is in the write-ahead log alone when the copy is made.
    db.execute("INSERT INTO drained_nodes VALUES ('o', 'newer')")
    bring_up(db, path, (*STEPS[:1], second, third))
    assert version(path) == 3
    assert db.execute("SELECT * FROM second").fetchall() == [(2, None)]
    copy = path.with_name("coordinator.db.v1")
    assert version(copy) == 1
    assert drained(copy) == [("n", "why"), ("o", "newer")]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(entry.name for entry in path.parent.glob("*.v*")) == [copy.name]


def test_a_step_that_fails_leaves_the_store_as_it_was(path: Path, db: sqlite3.Connection) -> None:
    def fails(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM drained_nodes")
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        bring_up(db, path, (*STEPS[:1], second, fails))
    assert version(path) == 1
    assert drained(path) == [("n", "why")]
    assert not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'second'").fetchall()
    bring_up(db, path, (*STEPS[:1], second))
    assert version(path) == 2


def test_a_new_store_is_not_copied(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "coordinator.db").close()
    assert version(tmp_path / "coordinator.db") == len(STEPS)
    assert not list(tmp_path.glob("*.v*"))


def test_copies_of_two_versions_are_kept(path: Path, db: sqlite3.Connection) -> None:
    steps: tuple[StoreStep, ...] = STEPS[:1]
    for _ in range(4):
        steps = (*steps, lambda db: None)
        bring_up(db, path, steps)
    copies = sorted(path.parent.glob("*.v*"))
    assert [copy.name for copy in copies] == ["coordinator.db.v3", "coordinator.db.v4"]
    assert [version(copy) for copy in copies] == [3, 4]


def test_a_disk_without_room_for_the_copy_is_told_and_nothing_is_changed(
    path: Path, db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 1024 * 1024))
        with pytest.raises(UnusableStore, match=r"needs 9 MiB .* 3 MiB are free") as caught:
            bring_up(db, path, (*STEPS[:1], second))
    assert "\n" not in str(caught.value)
    assert version(path) == 1
    assert not list(path.parent.glob("*.v*"))


def test_what_a_copy_left_half_made_is_replaced(path: Path, db: sqlite3.Connection) -> None:
    path.with_name("coordinator.db.copying").write_text("half of a copy")
    bring_up(db, path, (*STEPS[:1], second))
    assert drained(path.with_name("coordinator.db.v1")) == [("n", "why")]
    assert not path.with_name("coordinator.db.copying").exists()


async def test_a_newer_store_is_refused_in_one_line_that_names_both_versions(
    tmp_path: Path,
) -> None:
    async with running(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "coordinator.db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(BadConfig) as caught:
        async with running(tmp_path):
            raise AssertionError("it started")
    text = str(caught.value)
    assert text.startswith("SCAIMIND_COORDINATOR_DATA_DIR: coordinator.db has version 99")
    assert f"up to version {len(STEPS)}" in text
    assert "start the newer coordinator again" in text
    assert "\n" not in text
    assert version(tmp_path / "coordinator.db") == 99


@pytest.fixture
def directory(tmp_path: Path) -> JobDir:
    """The directory of a job that a coordinator without formats made."""
    directory = JobDir(tmp_path / "job")
    directory.path.mkdir()
    directory.lock.touch()
    return directory


def test_a_job_directory_takes_each_step_once_and_in_order(directory: JobDir) -> None:
    taken = []
    steps = (lambda _: taken.append(2), lambda _: taken.append(3))
    jobdir_steps.bring_up(directory, steps[:1])
    jobdir_steps.bring_up(directory, steps)
    jobdir_steps.bring_up(directory, steps)
    assert taken == [2, 3]
    assert read_json(directory.format) == {"format": 3}


def test_a_step_of_a_job_directory_that_failed_is_taken_again(directory: JobDir) -> None:
    taken = []

    def fails_once(_: JobDir) -> None:
        taken.append(3)
        if len(taken) == 2:
            raise OSError("midway")

    steps = (lambda _: taken.append(2), fails_once)
    with pytest.raises(OSError, match="midway"):
        jobdir_steps.bring_up(directory, steps)
    jobdir_steps.bring_up(directory, steps)
    assert taken == [2, 3, 3]


def test_steps_of_a_job_directory_hold_the_job_s_lock(directory: JobDir) -> None:
    def locks_too(directory: JobDir) -> None:
        with locked(directory.lock, wait=False):
            raise AssertionError("nobody held it")

    with pytest.raises(Locked):
        jobdir_steps.bring_up(directory, (locks_too,))


def test_a_newer_job_directory_is_refused(directory: JobDir) -> None:
    jobdir_steps.mark_new(directory, (lambda _: None, lambda _: None))
    with pytest.raises(NewerFormat, match=r"has format 3, .* up to format 2"):
        jobdir_steps.bring_up(directory, (lambda _: None,))


def test_a_new_job_directory_has_nothing_to_take(directory: JobDir) -> None:
    def fails(_: JobDir) -> None:
        raise AssertionError("it was taken")

    jobdir_steps.mark_new(directory, (fails,))
    jobdir_steps.bring_up(directory, (fails,))


def test_a_marker_that_a_power_cut_left_empty_counts_as_none(directory: JobDir) -> None:
    taken = []
    directory.format.touch()
    jobdir_steps.bring_up(directory, (lambda _: taken.append(2),))
    assert taken == [2]
    assert read_json(directory.format) == {"format": 2}
