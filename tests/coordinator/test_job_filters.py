"""Lists by label, name, user, time and kind: the right jobs, counted, page by page, by an index."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.coordinator.jobs.lister import JobLister
from app.coordinator.jobs.listing import ORDERS, Filters, Order, list_jobs
from app.coordinator.jobs.model import JobRecord, Kind
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.steps.store_steps import STEPS, bring_up
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest
from tests.coordinator.test_store import record


def job(job_id: str, at: int, name: str, user: str, **labels: str) -> JobRecord:
    return replace(
        record(job_id),
        name=name,
        user_id=user,
        created_at=at,
        updated_at=at,
        kind=Kind.EVALUATION if labels.get("type") == "evaluation" else Kind.TRAINING,
        status=Status.FAILED if user == "bob" else Status.QUEUED,
        priority=at % 3,
        submission=SubmitJobRequest(name=name, labels=labels),
    )


JOBS = [
    job("a", 1, "Lange Stra\u00dfe", "ann", team="nlp"),
    job("b", 2, "b", "bob", team="nlp", draft="yes"),
    replace(job("c", 3, "100%_sure", "ann", team="vision"), parent_job_id="a"),
    job("d", 4, "Evaluation of b", "carl", type="evaluation"),
    replace(job("e", 5, "b", "ann", team="nlp"), tenant_id="other", parent_job_id="a"),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "db")
    with store.transaction():
        store.save_jobs(JOBS)
        for each in JOBS:
            store.save_search(each)
    yield store
    store.close()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "abcd"),
        ({"labels": {"team": "nlp"}}, "ab"),
        ({"labels": {"team": "nlp", "draft": "yes"}}, "b"),
        ({"labels": {"team": "nl"}}, ""),
        ({"name": "STRASSE"}, "a"),
        ({"name": "%"}, "c"),
        ({"name": "B"}, "bd"),
        ({"users": ["ann"]}, "ac"),
        ({"users": ["ann", "bob", "ann"]}, "abc"),
        ({"created_after": 3}, "cd"),
        ({"kind": Kind.EVALUATION}, "d"),
        ({"parent": "a"}, "c"),
        ({"parent": "a", "users": ["bob"]}, ""),
        ({"parent": "a", "labels": {"team": "vision"}}, "c"),
        ({"parent": "b"}, ""),
        ({"kind": Kind.TRAINING}, "abc"),
        ({"kind": Kind.TRAINING, "users": ["ann"], "created_after": 2}, "c"),
        ({"labels": {"team": "nlp"}, "name": "b", "statuses": [Status.FAILED]}, "b"),
        ({"labels": {"team": "nlp"}, "created_after": 2}, "b"),
        ({"statuses": [Status.QUEUED], "users": ["ann", "carl"]}, "acd"),
    ],
)
def test_all_conditions_hold_on_every_page_of_every_order(
    store: SqliteStore, wanted: Any, found: str, order: str
) -> None:
    for descending in (False, True):
        pages, token = "", ""
        for _ in range(max(len(found), 1)):
            page = list_jobs(
                store._db,
                "t",
                filters=Filters(**wanted),
                order=Order(order, descending),
                page_size=1,
                page_token=token,
            )
            assert page.total_count == len(found)
            pages += "".join(each.job_id for each in page.jobs)
            token = page.next_page_token
        assert sorted(pages) == list(found)
        assert token == ""
        if order == "created_at":
            assert pages == (found[::-1] if descending else found)


def test_a_job_that_is_renamed_is_found_by_its_new_name_alone(store: SqliteStore) -> None:
    renamed = replace(
        JOBS[0], name="New", submission=SubmitJobRequest(name="New", labels={"team": "x"})
    )
    with store.transaction():
        store.save_submission(renamed)

    def ids(**wanted: Any) -> list[str]:
        page = list_jobs(
            store._db,
            "t",
            filters=Filters(**wanted),
            order=Order(),
            page_size=10,
            page_token="",
        )
        return [each.job_id for each in page.jobs]

    assert ids(name="new") == ["a"]
    assert ids(name="lange") == []
    assert ids(labels={"team": "nlp"}) == ["b"]
    assert ids(labels={"team": "x"}) == ["a"]
    found = store.job("t", "a")
    assert found is not None
    assert (found.name, dict(found.submission.labels)) == ("New", {"team": "x"})


def test_jobs_of_an_older_store_are_found(tmp_path: Path) -> None:
    path = tmp_path / "db"
    before = next(at for at, step in enumerate(STEPS) if step.__name__ == "index_filters")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        bring_up(db, path, STEPS[:before])
        db.execute(
            "INSERT INTO jobs VALUES ('j', 't', 'u', 'Stra\u00dfe', 'training', 10, 5, 'default',"
            " 1, 7, 7, 7, 0, 0, 8, x'', NULL, '{}'),"
            " ('k', 't', 'u', '', 'training', 10, 5, 'default', 1, 8, 8, 8, 0, 0, 8, x'', NULL,"
            """ '{"parent_job_id": "j"}'),"""
            " ('l', 't', 'u', '', 'training', 10, 5, 'default', 1, 9, 9, 9, 0, 0, 9, x'', NULL,"
            " 'damaged')"
        )
        db.execute("INSERT INTO job_labels VALUES ('j', 'team', 'nlp')")
        bring_up(db, path)
        for statement in (
            "SELECT job_id FROM job_search WHERE tenant_id = 't' AND instr(name, 'strasse') > 0"
            " AND user_id = 'u' AND kind = 'training' AND created_at = 7",
            "SELECT job_id FROM job_labels WHERE tenant_id = 't' AND key = 'team'"
            " AND value = 'nlp' AND created_at = 7",
        ):
            assert [row["job_id"] for row in db.execute(statement)] == ["j"]
        parents = db.execute("SELECT job_id, parent_job_id FROM job_search ORDER BY job_id")
        assert [tuple(row) for row in parents] == [("j", ""), ("k", "j"), ("l", "")]


@pytest.mark.parametrize(
    ("wanted", "table"),
    [
        ({"labels": {"team": "nlp"}}, "job_labels_by_value"),
        ({"users": ["ann"]}, "job_search_by_user"),
        ({"kind": Kind.EVALUATION}, "job_search_by_kind"),
        ({"parent": "a"}, "job_search_by_parent"),
        ({"created_after": 3}, "jobs_by_creation"),
        ({}, "jobs_by_"),
    ],
)
def test_a_page_needs_no_sorting(store: SqliteStore, wanted: Any, table: str) -> None:
    told: list[str] = []
    store._db.set_trace_callback(told.append)
    list_jobs(store._db, "t", filters=Filters(**wanted), order=Order(), page_size=1, page_token="")
    store._db.set_trace_callback(None)
    for query in (text for text in told if "tenant_id = " in text):
        plan = [row["detail"] for row in store._db.execute(f"EXPLAIN QUERY PLAN {query}")]
        assert table in plan[0], plan
        assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN")]


async def test_lists_see_what_is_committed(store: SqliteStore, tmp_path: Path) -> None:
    lister = JobLister(store)

    async def count() -> int:
        page = await lister.page("t", filters=Filters(), order=Order(), page_size=1, page_token="")
        return page.total_count

    assert await count() == 4
    with store.transaction():
        store.delete_job("t", "a", now=1)
    assert await count() == 3
    lister.close()
