"""The lease: one leads at a time, and one that does not know it any more does nothing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg2
import pytest

from app.coordinator.database.leader_table import LeaderTable
from app.coordinator.database.postgres import PostgresDatabase
from app.coordinator.database.postgres_connection import PostgresAddress
from app.coordinator.failures import LeadershipLost, StoreUnavailable
from app.coordinator.jobs.postgres_store import PostgresStore
from app.coordinator.jobs.steps.store_steps import UnusableStore
from app.coordinator.jobs.store import Store
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.ownership.lease import Lease
from tests.coordinator.stores import PATIENCE, SCHEMA
from tests.coordinator.test_store import record

SECONDS = 3600.0


class Candidate:
    """A coordinator's lease, by a clock that a test sets."""

    def __init__(self, name: str, dsn: str, folder: Path) -> None:
        self.name = name
        self.now = 1000.0
        self.reasons: list[str] = []
        self.lease = Lease(
            LeaderTable(PostgresAddress(dsn, SCHEMA), patience=PATIENCE),
            seconds=SECONDS,
            term_file=TermFile.of(folder),
            lost=self.reasons.append,
            clock=lambda: self.now,
        )

    def leads(self) -> bool:
        return self.lease.try_take(holder=self.name, address=f"{self.name}:1") is None


@pytest.fixture
def candidates(postgres_dsn: str, tmp_path: Path) -> Iterator[Callable[[str], Candidate]]:
    with closing(LeaderTable(PostgresAddress(postgres_dsn, SCHEMA), patience=PATIENCE)) as table:
        table.prepare()
        # Once more does nothing.
        table.prepare()
    with ExitStack() as made:

        def make(name: str) -> Candidate:
            candidate = Candidate(name, postgres_dsn, tmp_path)
            made.callback(candidate.lease.close)
            return candidate

        yield make


def expire(dsn: str, schema: str = SCHEMA, *, of: str = "") -> None:
    """Have the lease run out by the server's clock, which a test cannot set; with `of`, only if the
    coordinator at that address leads yet."""
    whose = f" WHERE address = '{of}'" if of else ""
    run(dsn, f"UPDATE {schema}.leadership SET expires_at = clock_timestamp(){whose}")


def run(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)


def open_store(candidate: Candidate, dsn: str, folder: Path) -> Store:
    return PostgresStore(
        PostgresAddress(dsn, SCHEMA),
        leadership=candidate.lease,
        note=folder / "note",
        patience=PATIENCE,
    )


def test_one_leads_and_the_other_knows_who(
    candidates: Callable[[str], Candidate], postgres_dsn: str, tmp_path: Path
) -> None:
    first, second = candidates("first"), candidates("second")
    assert first.leads()
    leader = second.lease.try_take(holder="second", address="second:1")
    assert leader is not None
    assert (leader.term, leader.address, leader.leads) == (1, "first:1", True)
    first.lease.close()
    assert second.leads()
    assert second.lease.term == 2
    assert TermFile.of(tmp_path).read() == 2


def test_a_lease_does_not_count_whose_holder_has_ended(
    candidates: Callable[[str], Candidate],
) -> None:
    first, second, third = candidates("first"), candidates("second"), candidates("third")
    assert first.leads()
    assert not second.leads()
    assert not third.leads()
    # It holds its lock as long as its process lives, whatever becomes of its lead.
    assert not second.leads()
    assert not third.leads()
    first.lease.lose("it was stopped")
    first.lease.close()
    assert not second.leads()
    # As the end of its process does.
    first.lease._leader_lock.close()
    assert second.leads()
    assert second.lease.term == 2
    # The third one has seen that, too, and nobody has ended since.
    assert not third.leads()
    assert not third.leads()


def test_a_term_is_higher_than_any_that_the_data_directory_knows(
    candidates: Callable[[str], Candidate], tmp_path: Path
) -> None:
    # A database that was put back, or a replica that lacks the last take-over.
    TermFile.of(tmp_path).raise_to(7)
    candidate = candidates("one")
    assert candidate.leads()
    assert candidate.lease.term == 8


def test_one_that_was_stopped_writes_nothing(
    candidates: Callable[[str], Candidate], postgres_dsn: str, tmp_path: Path
) -> None:
    first, second = candidates("first"), candidates("second")
    assert first.leads()
    with closing(open_store(first, postgres_dsn, tmp_path)) as store:
        with store.transaction():
            store.save_jobs([record("a")])
        # While it stands still, its lease runs out and another one leads.
        expire(postgres_dsn)
        assert second.leads()
        with closing(open_store(second, postgres_dsn, tmp_path)) as other:
            assert [job.job_id for job in other.unfinished()] == ["a"]
            # Its own clock says so, before it asks anybody.
            first.now += SECONDS
            with pytest.raises(LeadershipLost), store.transaction():
                store.save_jobs([record("b")])
            assert first.reasons == ["the lease ran out before it could be renewed"]
            with pytest.raises(LeadershipLost):
                first.lease.check()
            with other.transaction():
                other.save_jobs([record("c")])
            assert {job.job_id for job in other.unfinished()} == {"a", "c"}


def test_the_database_refuses_one_whose_own_clock_is_wrong(
    candidates: Callable[[str], Candidate], postgres_dsn: str, tmp_path: Path
) -> None:
    first, second = candidates("first"), candidates("second")
    assert first.leads()
    with closing(open_store(first, postgres_dsn, tmp_path)) as store:
        expire(postgres_dsn)
        assert second.leads()
        first.lease.check()
        with pytest.raises(LeadershipLost), store.transaction():
            store.save_jobs([record("a")])
        assert first.reasons == ["another coordinator has taken over"]
        assert store.unfinished() == []


def test_a_lease_is_renewed_unless_it_has_run_out(
    candidates: Callable[[str], Candidate], postgres_dsn: str
) -> None:
    first = candidates("first")
    assert first.leads()
    first.now += 0.8 * SECONDS
    first.lease.renew()
    first.now += 0.8 * SECONDS
    first.lease.check()
    expire(postgres_dsn)
    first.lease.renew()
    assert first.reasons == ["another coordinator may lead"]
    # Once is enough.
    first.lease.renew()
    first.lease.lose("another reason")
    assert len(first.reasons) == 1


def test_a_change_of_which_nobody_knows_whether_it_is_stored_ends_the_lead(
    candidates: Callable[[str], Candidate], postgres_dsn: str, tmp_path: Path
) -> None:
    first = candidates("first")
    assert first.leads()
    with closing(open_store(first, postgres_dsn, tmp_path)) as store:
        assert isinstance(store._db, PostgresDatabase)
        # It is gone before anything was sent: nothing has happened, and it passes.
        kill_connections(postgres_dsn)
        with pytest.raises(StoreUnavailable), store.transaction():
            store.save_jobs([record("a")])
        assert first.reasons == []
        assert store._db._opening is not None
        store._db._opening.join(60)
        with store.transaction():
            store.save_jobs([record("a")])
        # The server leaves with the message on its way.
        with pytest.raises(LeadershipLost):
            save_and(store, "SELECT pg_terminate_backend(pg_backend_pid())")
        assert len(first.reasons) == 1
        assert "unknown" in first.reasons[0]


def test_what_the_server_refuses_for_now_passes(
    candidates: Callable[[str], Candidate], postgres_dsn: str, tmp_path: Path
) -> None:
    first = candidates("first")
    assert first.leads()
    with closing(open_store(first, postgres_dsn, tmp_path)) as store:
        # A server waits no longer for a coordinator that stands still within a transaction.
        store.hurry()
        shown = store._db.execute("SHOW idle_in_transaction_session_timeout").fetchone()
        assert shown[0] == "299800ms"
        for failure in ("query_canceled", "serialization_failure", "deadlock_detected"):
            refusal = f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{failure}'; END $$"
            with pytest.raises(StoreUnavailable):
                save_and(store, refusal)
        assert first.reasons == []
        with store.transaction():
            store.save_jobs([record("a")])
        assert [job.job_id for job in store.unfinished()] == ["a"]


def test_a_schema_of_a_newer_version_is_left_alone(
    candidates: Callable[[str], Candidate], postgres_dsn: str, tmp_path: Path
) -> None:
    first = candidates("first")
    assert first.leads()
    open_store(first, postgres_dsn, tmp_path).close()
    run(postgres_dsn, f"UPDATE {SCHEMA}.schema_version SET version = 99")
    with pytest.raises(UnusableStore, match="has version 99"):
        open_store(first, postgres_dsn, tmp_path)


def save_and(store: Store, statement: str) -> None:
    with store.transaction():
        store.save_jobs([record("b")])
        store._db.write(statement)


def kill_connections(dsn: str) -> None:
    run(
        dsn,
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
