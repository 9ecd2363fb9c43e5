"""Whatever text a store is given: it is stored, found and moved, in PostgreSQL as in SQLite."""

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.coordinator.errors import InvalidArgument, all_problems
from app.coordinator.jobs import moving
from app.coordinator.jobs.listing import Filters, Order, list_jobs
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.moving import NotMoved
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.store import Store
from app.coordinator.ownership.moving import move_to_postgresql, move_to_sqlite
from app.coordinator.ownership.state import sqlite_path
from app.coordinator.service.interceptor import peer_of
from app.coordinator.submission.checks import MAX_NAME, MAX_VALUE, check_texts
from tests.coordinator.harness import config_for, submission
from tests.coordinator.stores import OpenStore, opener
from tests.coordinator.test_both_stores import full, save
from tests.coordinator.test_lease import expire
from tests.coordinator.test_moving import open_shared, rows_of


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    dsn = "" if request.param == "sqlite" else request.getfixturevalue("postgres_dsn")
    open_store: OpenStore = opener(request.param, tmp_path, dsn)
    with closing(open_store()) as store:
        yield store


def incompressible(characters: int) -> str:
    """A text that no index makes shorter: of four bytes each, the same in every run."""
    chance = random.Random(characters)
    return "".join(chr(chance.randrange(0x10000, 0x2FFFF)) for _ in range(characters))


#: The longest that a submission may have, and what a path may be.
LONG_VALUE = incompressible(MAX_VALUE)
LONG_KEY = incompressible(MAX_NAME)
LONG_PATH = incompressible(1000)
#: JSON has NULs and backslashes escaped, in front of what is looked for in it.
MESSAGE = "\\u0000 \\\\\0\0\\ \0"


def odd_jobs() -> list[JobRecord]:
    """Jobs that a client may bring about, and one that needs the files of another."""
    labelled = replace(full("labelled"), name=incompressible(MAX_NAME))
    labelled.submission.labels[LONG_KEY] = LONG_VALUE
    labelled.submission.labels["short"] = "☃"
    ended = replace(
        full("resumes"),
        status=Status.FAILED,
        ended_at=1,
        message=MESSAGE,
        error_message=MESSAGE,
        grant=None,
        resume_from=f"scaidrive://t/jobs/labelled/checkpoints/{LONG_PATH}",
    )
    exports = replace(ended, job_id="exports", resume_from="", artefacts_of="resumes")
    return [labelled, ended, exports]


def found(store: Store, **labels: str) -> list[str]:
    page = list_jobs(
        store._db,
        "t",
        filters=Filters(labels=labels),
        order=Order("created_at", descending=False),
        page_size=10,
        page_token="",
    )
    return [job.job_id for job in page.jobs]


def test_long_texts_and_nuls_are_stored_and_found(store: Store) -> None:
    jobs = odd_jobs()
    save(store, *jobs)
    for job in jobs:
        assert store.job("t", job.job_id) == job
    assert found(store, **{LONG_KEY: LONG_VALUE}) == ["labelled"]
    assert found(store, **{LONG_KEY: LONG_VALUE, "short": "☃"}) == ["labelled"]
    assert found(store, **{LONG_KEY: LONG_VALUE[:-1]}) == []
    # Or what another job begins at would be deleted under it.
    assert store.may_read_again("t", "labelled")
    assert store.may_read_again("t", "resumes")
    assert not store.may_read_again("t", "exports")


def test_they_are_moved_there_and_back(
    tmp_path: Path, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_BATCH", 2)
    config = config_for(tmp_path, database_dsn=postgres_dsn)
    path = sqlite_path(tmp_path)
    huge = replace(full("huge"), error_message=LONG_VALUE * 1000)
    with closing(SqliteStore(path)) as store:
        save(store, *odd_jobs(), huge)
    before = rows_of(path)
    move_to_postgresql(config, progress=lambda *_: None)
    with closing(open_shared(config)) as shared:
        for job in (*odd_jobs(), huge):
            assert shared.job("t", job.job_id) == job
        assert shared.may_read_again("t", "labelled")
    path.rename(tmp_path / "before.db")
    expire(config.database_dsn, config.database_schema)
    move_to_sqlite(config, progress=lambda *_: None)
    assert rows_of(path) == before


def test_an_empty_store_is_moved_there_and_back(tmp_path: Path, postgres_dsn: str) -> None:
    config = config_for(tmp_path, database_dsn=postgres_dsn)
    path = sqlite_path(tmp_path)
    SqliteStore(path).close()
    before = rows_of(path)
    assert not sum(move_to_postgresql(config, progress=lambda *_: None).rows.values())
    path.unlink()
    move_to_sqlite(config, progress=lambda *_: None)
    assert rows_of(path) == before


def test_rows_that_postgresql_cannot_tell_apart_are_not_moved(
    tmp_path: Path, postgres_dsn: str
) -> None:
    config = config_for(tmp_path, database_dsn=postgres_dsn)
    job = full("j")
    job.submission.labels["k"] = job.submission.labels["k\0"] = "v"
    with closing(SqliteStore(sqlite_path(tmp_path))) as store:
        save(store, job)
    with pytest.raises(NotMoved, match="PostgreSQL refused: duplicate key"):
        move_to_postgresql(config, progress=lambda *_: None)
    with closing(open_shared(config)) as shared:
        assert not shared.unfinished()


def test_a_user_is_as_long_as_gateways_have_it() -> None:
    def context(user_id: str) -> Any:
        metadata = (("x-tenant-id", "t"), ("x-user-id", user_id))
        return SimpleNamespace(invocation_metadata=lambda: metadata)

    assert peer_of(context("u" * 256)).user_id == "u" * 256
    with pytest.raises(InvalidArgument, match="x-user-id"):
        peer_of(context("u" * 257))


def test_a_submission_has_no_nul_where_jobs_are_found_by_it() -> None:
    for changes in ({"name": "a\0b"}, {"labels": {"k\0": "v"}}, {"labels": {"k": "\0"}}):
        with pytest.raises(InvalidArgument, match="NUL"), all_problems() as problems:
            check_texts(submission(**changes), problems)
