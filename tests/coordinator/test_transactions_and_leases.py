"""A lease and the transactions of its holder: neither ends the other, and a take-over waits."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from app.coordinator.database.leader_table import LeaderTable
from app.coordinator.database.postgres import PostgresDatabase
from app.coordinator.database.postgres_connection import PostgresAddress
from app.coordinator.failures import StoreUnavailable
from app.coordinator.jobs.postgres import steps
from app.coordinator.jobs.store import Store
from tests.coordinator.stores import SCHEMA
from tests.coordinator.test_lease import Candidate, candidates, expire, open_store, run
from tests.coordinator.test_store import record

__all__ = ["candidates"]

#: Seconds until a statement that waits for a lock is given up: what is under test waits for none.
IMPATIENT = 60.0
#: Of one that has to wait.
SOON = 0.5


def impatient(dsn: str, seconds: float) -> LeaderTable:
    return LeaderTable(PostgresAddress(dsn, SCHEMA), patience=seconds)


def take(table: LeaderTable, ended: int | None = None) -> None:
    table.take(holder="second", address="", seconds=3600, known=0, ended=ended)


def test_a_long_transaction_of_the_leader_does_not_keep_its_lease_from_being_renewed(
    candidates: Callable[[str], Candidate], postgres_dsn: str, tmp_path: Path
) -> None:
    first = candidates("first")
    assert first.leads()
    with (
        closing(open_store(first, postgres_dsn, tmp_path)) as store,
        closing(impatient(postgres_dsn, IMPATIENT)) as renewing,
    ):
        with store.transaction():
            store.save_jobs([record("a")])
            # Sent, and under way: a slow statement, or a step over a million rows.
            store._db.execute("SELECT 1")
            assert renewing.renew(first.lease.term, seconds=3600)
        assert [job.job_id for job in store.unfinished()] == ["a"]


def test_a_take_over_waits_for_what_the_former_leader_has_sent(
    candidates: Callable[[str], Candidate], postgres_dsn: str, tmp_path: Path
) -> None:
    first, second = candidates("first"), candidates("second")
    assert first.leads()
    with (
        closing(open_store(first, postgres_dsn, tmp_path)) as store,
        closing(impatient(postgres_dsn, SOON)) as hurried,
    ):
        with store.transaction():
            store.save_jobs([record("a")])
            store._db.execute("SELECT 1")
            expire(postgres_dsn)
            with pytest.raises(StoreUnavailable):
                take(hurried)
            # Nor where its process has ended, whose last words the server still writes down.
            with pytest.raises(StoreUnavailable):
                take(hurried, ended=first.lease.term)
        assert second.leads()
        with closing(open_store(second, postgres_dsn, tmp_path)) as other:
            assert [job.job_id for job in other.unfinished()] == ["a"]


def test_a_transaction_does_not_go_on_by_another_connection(
    candidates: Callable[[str], Candidate], postgres_dsn: str, tmp_path: Path
) -> None:
    first = candidates("first")
    assert first.leads()
    with closing(open_store(first, postgres_dsn, tmp_path)) as store:
        with pytest.raises(StoreUnavailable, match="lost in a transaction"):
            _go_on_by_another_connection(store)
        assert store.unfinished() == []
        with store.transaction():
            store.save_jobs([record("c")])
        assert [job.job_id for job in store.unfinished()] == ["c"]
        assert first.reasons == []


def test_a_schema_of_the_first_version_is_brought_up_with_its_rows(
    candidates: Callable[[str], Candidate],
    postgres_dsn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = candidates("first")
    assert first.leads()
    with monkeypatch.context() as patch:
        before = steps.STEPS[:1]
        patch.setattr(steps.bring_up, "__defaults__", (before,))
        # As it was made then.
        run(postgres_dsn, FORMER_CHECK)
        with closing(open_store(first, postgres_dsn, tmp_path)) as store, store.transaction():
            store.save_jobs([record("a")])
            store.save_search(record("a"))
    with closing(open_store(first, postgres_dsn, tmp_path)) as store:
        assert store.job("t", "a") == record("a")
        with (
            store.transaction(),
            closing(impatient(postgres_dsn, IMPATIENT)) as renewing,
        ):
            store._db.execute("SELECT 1")
            assert renewing.renew(first.lease.term, seconds=3600)
    with closing(psycopg2.connect(postgres_dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT version FROM {SCHEMA}.schema_version")
        assert cursor.fetchone() == (len(steps.STEPS),)


def _go_on_by_another_connection(store: Store) -> None:
    with store.transaction():
        store.save_jobs([record("a")])
        store._db.execute("SELECT 1")
        # The half that was sent is gone; whoever goes on all the same must store no other.
        with pytest.raises(StoreUnavailable):
            store._db.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert isinstance(store._db, PostgresDatabase)
        assert store._db._opening is not None
        store._db._opening.join(60)
        store.save_jobs([record("b")])


FORMER_CHECK = f"""
    CREATE OR REPLACE FUNCTION {SCHEMA}.check_term(own bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM leadership WHERE term = own AND expires_at > clock_timestamp() FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the term % is over', own USING ERRCODE = 'SM001';
        END IF;
    END $$
"""
