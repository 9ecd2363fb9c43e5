"""The database: whole steps or nothing."""

import base64
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from app.coordinator.errors import InvalidArgument
from app.coordinator.identity.access import Grant
from app.coordinator.jobs.listing import PAGE_BYTES, Filters, JobsPage, Order, list_jobs
from app.coordinator.jobs.messages import job_message
from app.coordinator.jobs.model import (
    Allocation,
    Checkpoint,
    JobRecord,
    Progress,
    ResourceRequest,
    StopReason,
)
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.steps.store_steps import UnusableStore
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest


def record(job_id: str = "j") -> JobRecord:
    return JobRecord(
        job_id=job_id,
        tenant_id="t",
        user_id="u",
        name="n",
        submission=SubmitJobRequest(name="n", labels={"a": "b"}),
        resource_request=ResourceRequest(2, 3, "A100", 4, 5, 6, ("x", "y"), (("k", "v"),)),
        created_at=1,
        updated_at=2,
    )


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    job = replace(
        record(),
        status=Status.CHECKPOINTING,
        stop_reason=StopReason.PAUSE,
        placement=(Allocation("x", (0, 2), 5, 6), Allocation("y", (), 5, 6)),
        node_ids=("x", "y"),
        checkpoints=(Checkpoint("step-1", 1, 10, 3, sequence=7, identity="1:2", measured=1),),
        checkpoint_count=1,
        progress=Progress(1, 2, 0.5, 0.25),
        exit_code=-9,
        grant=Grant.give(tenant_id="t", user_id="u", job_id="j", urls=["scaidrive://t/a"]),
    )
    store = SqliteStore(tmp_path / "db")
    with store.transaction():
        store.save_jobs([job])
        store.save_checkpoints(None, job)
    assert store.job("t", "j") == job
    assert store.unfinished() == [job]
    assert store.job("other", "j") is None
    store.close()
    store = SqliteStore(tmp_path / "db")
    assert store.unfinished() == [job]
    store.close()


def test_a_transaction_that_fails_saves_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")

    def midway() -> None:
        with store.transaction():
            store.save_jobs([record()])
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        midway()
    assert store.unfinished() == []
    with store.transaction():
        store.save_jobs([record("other")])
    assert [job.job_id for job in store.unfinished()] == ["other"]
    store.close()


def test_a_full_disk_rolls_back_and_the_store_goes_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    large = replace(record("large"), message="x" * 100_000)
    with pytest.raises(sqlite3.OperationalError, match="full"), store.transaction():
        store.save_jobs([large])
    store._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    with store.transaction():
        store.save_jobs([large])
    assert store.job("t", "large") == large
    store.close()


@pytest.mark.parametrize("text", ["job_id", "name up", "name desc desc", "; drop", "-name"])
def test_orders_that_there_are_not(text: str) -> None:
    with pytest.raises(InvalidArgument, match="order_by"):
        Order.parse(text)


def test_a_newer_schema_is_not_touched(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "db").close()
    with sqlite3.connect(tmp_path / "db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(UnusableStore, match="99"):
        SqliteStore(tmp_path / "db")


def test_a_page_of_large_jobs_has_fewer_of_them(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")
    large = SubmitJobRequest()
    large.training_config.environment["LARGE"] = "x" * 897 * 1024
    with store.transaction():
        store.save_jobs(
            replace(record(), job_id=f"j{at:02}", submission=large, created_at=at)
            for at in range(22)
        )
        huge = SubmitJobRequest()
        huge.training_config.environment["HUGE"] = "x" * (PAGE_BYTES + 1)
        store.save_jobs([replace(record(), job_id="huge", submission=huge, created_at=100)])
    token, pages = "", []
    while True:
        page = list_jobs(
            store._db, "t", filters=Filters(), order=Order(), page_size=100, page_token=token
        )
        pages.append([job.job_id for job in page.jobs])
        assert sum(job_message(job).ByteSize() for job in page.jobs[1:]) < PAGE_BYTES
        assert page.total_count == 23
        if not (token := page.next_page_token):
            break
    assert pages[0] == ["huge"]
    assert [job_id for page in pages[1:] for job_id in page] == [
        f"j{at:02}" for at in reversed(range(22))
    ]


def test_checkpoints_count_in_a_page(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")
    checkpoints = tuple(
        Checkpoint("step-" + "x" * 240 + f"{at:03}", at, 1, created_at=1, sequence=at)
        for at in range(100)
    )
    with store.transaction():
        for at in range(100):
            job = replace(
                record(), job_id=f"j{at:03}", tenant_id="t" * 128, checkpoints=checkpoints
            )
            store.save_jobs([job])
            store.save_checkpoints(None, job)
    page = list_jobs(
        store._db, "t" * 128, filters=Filters(), order=Order(), page_size=100, page_token=""
    )
    assert page.next_page_token
    assert sum(job_message(job).ByteSize() for job in page.jobs) <= PAGE_BYTES


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, -(2**63) - 1])
def test_a_page_token_with_a_number_that_is_too_large(tmp_path: Path, number: int) -> None:
    store = SqliteStore(tmp_path / "db")
    with store.transaction():
        store.save_jobs(replace(record(), job_id=f"j{at}") for at in range(2))

    def page(token: str) -> JobsPage:
        return list_jobs(
            store._db, "t", filters=Filters(), order=Order(), page_size=1, page_token=token
        )

    token = page("").next_page_token
    parts = json.loads(base64.urlsafe_b64decode(token + "=="))
    parts[1] = number
    forged = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")
    with pytest.raises(InvalidArgument, match="page_token"):
        page(forged)
