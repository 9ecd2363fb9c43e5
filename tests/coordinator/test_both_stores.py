"""The store says the same in SQLite and in PostgreSQL."""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest

from app.coordinator.identity.access import Grant
from app.coordinator.jobs.changes.reader import ChangeReader
from app.coordinator.jobs.lister import JobLister
from app.coordinator.jobs.listing import ORDERS, Filters, Order
from app.coordinator.jobs.model import (
    Allocation,
    Checkpoint,
    JobRecord,
    Kind,
    Progress,
    StopReason,
)
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.store import Store, UsedKey
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest
from tests.coordinator.stores import OpenStore, opener
from tests.coordinator.test_store import record


@pytest.fixture(params=["sqlite", "postgresql"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    dsn = "" if request.param == "sqlite" else request.getfixturevalue("postgres_dsn")
    return opener(request.param, tmp_path, dsn)


@pytest.fixture
def store(open_store: OpenStore) -> Iterator[Store]:
    with closing(open_store()) as store:
        yield store


def save(store: Store, *jobs: JobRecord) -> None:
    with store.transaction():
        store.save_jobs(jobs)
        for job in jobs:
            store.save_search(job)
            store.save_checkpoints(None, job)


def full(job_id: str = "j") -> JobRecord:
    return replace(
        record(job_id),
        name="Größe ☃",
        status=Status.CHECKPOINTING,
        stop_reason=StopReason.PAUSE,
        placement=(Allocation("x", (0, 2), 5, 6), Allocation("y", (), 5, 6)),
        node_ids=("x", "y"),
        checkpoints=(Checkpoint("step-1", 1, 10, 3, sequence=7, identity="1:2", measured=1),),
        checkpoint_count=1,
        progress=Progress(1, 2, 0.5, 0.25),
        exit_code=-9,
        grant=Grant.give(tenant_id="t", user_id="u", job_id=job_id, urls=["scaidrive://t/a"]),
    )


def test_a_record_comes_back_as_it_was(open_store: OpenStore) -> None:
    job = full()
    with closing(open_store()) as store:
        save(store, job)
        assert store.job("t", "j") == job
        assert store.job("other", "j") is None
        epoch = store.epoch
    with closing(open_store()) as store:
        assert store.unfinished() == [job]
        assert store.epoch == epoch
        changed = replace(job, status=Status.FAILED, revision=9, ended_at=5, checkpoints=())
        with store.transaction():
            store.save_jobs([changed])
            store.save_checkpoints(job, changed)
        assert store.unfinished() == []
        assert store.job("t", "j") == replace(changed, checkpoint_count=0)
        assert store.may_run_again("j")


def test_what_fails_leaves_nothing(store: Store) -> None:
    save(store, record("a"))

    def midway() -> None:
        with store.transaction():
            store.save_jobs([record("b")])
            store.delete_job("t", "a", now=1)
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        midway()
    assert [job.job_id for job in store.unfinished()] == ["a"]
    assert store.reach("t").newest == 1
    used = UsedKey(b"\0digest", "a")
    with store.transaction():
        store.save_key("t", "key", used, now=10, since=0)

    def again() -> None:
        with store.transaction():
            store.save_jobs([record("b")])
            store.save_key("t", "key", used, now=11, since=0)

    with pytest.raises((sqlite3.IntegrityError, psycopg2.IntegrityError)):
        again()
    assert store.job("t", "b") is None
    assert store.find_key("t", "key", since=10) == used
    assert store.find_key("t", "key", since=11) is None
    with store.transaction():
        store.save_key("t", "other", used, now=30, since=20)
    assert store.find_key("t", "key", since=0) is None


def test_drains_and_credentials_of_nobody(store: Store) -> None:
    with store.transaction():
        store.save_drain("n", "it is old")
        store.save_drain("m", "it is new")
        store.save_drain("m", None)
    assert store.drained_nodes() == {"n": "it is old"}
    assert store.newest_tenant() is None
    assert store.newest_creation() == 0


async def test_changes_are_told_in_their_order(open_store: OpenStore) -> None:
    told: list[frozenset[str]] = []
    with closing(open_store(told.append)) as store:
        save(store, record("a"), record("b"), replace(record("c"), tenant_id="other"))
        save(store, replace(record("a"), revision=2))
        with store.transaction():
            assert store.delete_job("t", "b", now=1)
            assert not store.delete_job("t", "nothing", now=1)
        assert told == [frozenset({"t", "other"}), frozenset({"t"}), frozenset({"t"})]
        assert store.reach("t").newest == 4
        with closing(ChangeReader(store)) as reader:
            page = await reader.page("t", 0)
            assert [(each.version, each.job.job_id) for each in page.changes] == [(3, "a"), (4, "")]
            assert page.changes[1].deleted_job_id == "b"
            assert page.changes[0].job.labels == {"a": "b"}
            assert (page.last, page.complete) == (4, True)
            assert not (await reader.page("t", 3, deletions_after=4)).changes
        assert [each.job_id for each in store.deleted_jobs(limit=5)] == ["b"]
        with store.transaction():
            store.forget_deleted("b")
        assert store.deleted_jobs(limit=5) == []


def test_what_ended_jobs_keep(store: Store) -> None:
    ended = replace(record("a"), status=Status.FAILED, ended_at=7)
    reads = replace(record("b"), status=Status.FAILED, ended_at=8)
    save(
        store,
        ended,
        replace(reads, resume_from="scaidrive://t/jobs/x/checkpoints/step-1"),
        replace(reads, job_id="c", artefacts_of="y"),
        replace(
            reads,
            job_id="d",
            grant=Grant.give(
                tenant_id="t", user_id="u", job_id="d", urls=["scaidrive://t/jobs/z/checkpoints/"]
            ),
        ),
    )
    with store.transaction():
        store.save_kept_bytes("a", 3, 4)
        store.save_kept_bytes("a", 5, 6)
        store.save_kept_bytes("nothing", 1, 1)
    assert store.kept_bytes() == (5, 6)
    assert [(each.job_id, each.size_bytes) for each in store.oldest_kept((0, ""), limit=2)] == [
        ("a", 11),
        ("b", None),
    ]
    assert [each.job_id for each in store.oldest_kept((8, "b"), limit=9)] == ["c", "d"]
    assert [store.may_read_again("t", each) for each in ("x", "y", "z", "a")] == [
        True,
        True,
        True,
        False,
    ]


def test_run_times_of_the_newest(store: Store) -> None:
    done = replace(record(), status=Status.COMPLETED, queue_name="q")
    save(
        store,
        *(replace(done, job_id=f"j{n}", ended_at=n, ran=n * 1_000_000) for n in (1, 2, 3)),
        replace(done, job_id="none", ended_at=9),
    )
    assert store.newest_run_times(2) == [("q", 2.0), ("q", 3.0)]


def test_a_row_that_cannot_be_read_fails_alone(store: Store) -> None:
    save(store, record("a"), record("b"))
    with store.transaction():
        store._db.write("UPDATE jobs SET state = ? WHERE job_id = 'a'", ("[",))
    assert store.fail_unreadable("It cannot be read.", 9) == ["a"]
    failed = store.job("t", "a")
    assert failed is not None
    assert (failed.status, failed.error_message) == (Status.FAILED, "It cannot be read.")
    assert [job.job_id for job in store.unfinished()] == ["b"]
    assert not store.may_read_again("t", "b")


def test_pages_of_checkpoints(store: Store) -> None:
    checkpoints = tuple(Checkpoint(f"c{n}", n, n, n, sequence=n) for n in range(5))
    save(store, replace(record(), checkpoints=checkpoints))
    page = store.list_checkpoints("j", page_size=3, page_token="")
    assert [each.checkpoint_id for each in page.checkpoints] == ["c4", "c3", "c2"]
    page = store.list_checkpoints("j", page_size=3, page_token=page.next_page_token)
    assert [each.checkpoint_id for each in page.checkpoints] == ["c1", "c0"]
    assert page.total_count == 5
    assert store.checkpoint("j", "c3") == checkpoints[3]
    assert store.checkpoint("j", "c9") is None


def some_jobs() -> list[JobRecord]:
    names = ["Zebra", "ant", "Ärger", "ant", "_", "ANT hill"]
    return [
        replace(
            record(f"j{n}"),
            name=name,
            user_id=f"u{n % 2}",
            kind=Kind.EVALUATION if n % 3 == 0 else Kind.TRAINING,
            status=Status.TRAINING if n % 2 else Status.QUEUED,
            priority=n % 3,
            created_at=n,
            updated_at=10 - n,
            parent_job_id="j0" if n > 3 else "",
            submission=SubmitJobRequest(labels={"odd": str(n % 2), "big": str(n > 2)}),
        )
        for n, name in enumerate(names)
    ]


FILTERS = (
    Filters(),
    Filters(statuses=[Status.TRAINING]),
    Filters(labels={"odd": "1"}),
    Filters(labels={"odd": "1", "big": "True"}, name="ANT"),
    Filters(name="ant", users=["u0", "u1"]),
    Filters(kind=Kind.TRAINING, created_after=2),
    Filters(parent="j0", statuses=[Status.TRAINING, Status.QUEUED]),
)


def passes(job: JobRecord, wanted: Filters) -> bool:
    return (
        (not wanted.statuses or job.status in wanted.statuses)
        and wanted.labels.items() <= job.submission.labels.items()
        and wanted.name.casefold() in job.name.casefold()
        and (not wanted.users or job.user_id in wanted.users)
        and job.created_at >= wanted.created_after
        and wanted.kind in (None, job.kind)
        and wanted.parent in ("", job.parent_job_id)
    )


async def test_lists_are_what_python_would_make_of_them(store: Store) -> None:
    jobs = some_jobs()
    save(store, *jobs)
    with closing(JobLister(store)) as lister:
        for wanted, column, descending in itertools.product(FILTERS, ORDERS, (False, True)):
            found = [job for job in jobs if passes(job, wanted)]
            found.sort(key=lambda job: (getattr(job, column), job.job_id), reverse=descending)
            listed: list[str] = []
            token = ""
            while True:
                page = await lister.page(
                    "t",
                    filters=wanted,
                    order=Order(column, descending),
                    page_size=2,
                    page_token=token,
                )
                assert page.total_count == len(found)
                listed += [job.job_id for job in page.jobs]
                token = page.next_page_token
                if not token:
                    break
            assert listed == [job.job_id for job in found], (wanted, column, descending)
