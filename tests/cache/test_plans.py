"""How PostgreSQL answers the reads: by ranges of indexes, however many jobs a tenant has."""

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from app.cache import statements
from app.database.connection import connected

#: Enough for the planner to mean it; one tenant has half of them.
JOBS = 20_000
FILL = (
    """
INSERT INTO mod_scaimind_jobs (
    tenant_id, job_id, revision, updated_at, status, status_at, message, name, priority, gpus,
    created_at, started_at, ended_at, job, synced_at
)
SELECT CASE WHEN g % 2 = 0 THEN 'huge' ELSE 'tenant_' || g % 100 END, 'job_' || g, 1,
    now() - make_interval(mins => g), 1 + g / 2 % 13, now(), '', md5(g::text), g % 11, 1,
    now() - make_interval(mins => g), now() - make_interval(mins => g), now(), '{}', now()
FROM generate_series(1, """
    + f"{JOBS}) AS g"
)


@pytest.fixture(scope="module")
def filled(new_database: Any, migrated_template: str) -> str:
    dsn: str = new_database(migrated_template)
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(FILL)
        cursor.execute("ANALYZE")
    return dsn


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def explain(dsn: str, statement: str, parameters: Any) -> list[dict[str, Any]]:
    """The plan's nodes that read the table of jobs, with what they have read."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
        [([told],)] = cursor.fetchall()
    return [
        node
        for node in nodes(told["Plan"])
        if node.get("Relation Name") == "mod_scaimind_jobs"
        or node.get("Index Name", "").startswith("mod_scaimind_jobs")
    ]


def rows(node: dict[str, Any]) -> float:
    """Rows that a node went over, those included that it then left out."""
    skipped = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    total: float = (node["Actual Rows"] + skipped) * node["Actual Loops"]
    return total


def listed(column: str, **given: Any) -> tuple[str, dict[str, Any]]:
    statement = statements.list_jobs(
        column,
        descending=given.get("descending", True),
        filtered="statuses" in given,
        continued="place" in given,
    )
    return statement, {"tenant": "huge", "rows": 101, **given}


READS = {
    "one job": ((statements.GET_JOB, ("huge", "job_2")), "mod_scaimind_jobs_pkey"),
    "newest": (listed("created_at"), "mod_scaimind_jobs_created_at_idx"),
    "oldest": (listed("created_at", descending=False), "mod_scaimind_jobs_created_at_idx"),
    "changed": (listed("updated_at"), "mod_scaimind_jobs_updated_at_idx"),
    "by name": (listed("name", descending=False), "mod_scaimind_jobs_name_idx"),
    "by priority": (listed("priority"), "mod_scaimind_jobs_priority_idx"),
    "by status": (listed("status"), "mod_scaimind_jobs_status_idx"),
    "of a status": (listed("created_at", statuses=[7]), "mod_scaimind_jobs_created_at_idx"),
    "of two": (listed("created_at", statuses=[7, 10]), "mod_scaimind_jobs_created_at_idx"),
    "a later page": (
        listed("name", place="8", job_id="job_1", descending=False),
        "mod_scaimind_jobs_name_idx",
    ),
    "summary": (
        (statements.SUMMARY, {"tenant": "huge", "failures": 10, "days": 90}),
        "mod_scaimind_jobs_failures_idx",
    ),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_goes_over_what_it_shows_and_little_else(filled: str, read: str) -> None:
    (statement, parameters), index = READS[read]
    reading = explain(filled, statement, parameters)
    assert index in {node.get("Index Name") for node in reading}
    assert all(node["Node Type"] != "Seq Scan" for node in reading)
    # A page's worth of index entries per status, and the page itself; the tenant has 10,000 jobs.
    assert sum(map(rows, reading)) <= 14 * 101 + 101


def test_the_purge_finds_what_is_old_by_an_index(filled: str) -> None:
    reading = explain(filled, statements.PURGE, (30, 1000))
    assert "mod_scaimind_jobs_synced_on_idx" in {node.get("Index Name") for node in reading}


def test_a_refresh_touches_no_index(filled: str) -> None:
    """PostgreSQL counts updates that needed no new index entries (HOT)."""
    with psycopg2.connect(filled) as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE mod_scaimind_jobs SET synced_at = now() + interval '1 ms', revision = 1"
            " WHERE job_id = 'job_2'"
        )
        cursor.execute(
            "SELECT pg_stat_get_xact_tuples_hot_updated(c.oid), pg_stat_get_xact_tuples_updated"
            "(c.oid) FROM pg_class c WHERE relname = 'mod_scaimind_jobs'"
        )
        assert cursor.fetchall() == [(1, 1)]
    connection.close()
