"""Reads: the same filters, orders and pages as the coordinator's, and nothing of another tenant."""

from itertools import product
from typing import Any

import pytest

from app.bridge.converters import JsonObject
from app.cache.filters import JobFilters
from app.cache.jobs import JobCache
from app.cache.page_tokens import BadPage, List, Order, is_ours
from app.database.pool import Pool
from tests.cache.jobs import at, job, new_writer, rfc3339, write

STATUSES = ("QUEUED", "TRAINING", "PAUSED", "COMPLETED", "FAILED")
#: Ties in everything but the id.
JOBS = [
    job(
        f"job-{number:02}",
        STATUSES[number * 7 % 5],
        revision=1,
        created=number // 3,
        updated=number % 4 + number / 100,
        started=0,
        ended=number if STATUSES[number * 7 % 5] in ("COMPLETED", "FAILED") else None,
        name=f"name {'aBcé'[number % 4]}",
        training_config={"priority": number % 3},
        gpus=number,
    )
    for number in range(40)
]
KEYS = {
    "created_at": lambda each: each["created_at"],
    "updated_at": lambda each: each["updated_at"],
    "name": lambda each: each["name"].encode(),
    "status": lambda each: (*STATUSES,).index(each["status"]),
    "priority": lambda each: each["training_config"]["priority"],
}


async def pages(cache: JobCache, tenant: str = "acme", **asked: Any) -> list[JsonObject]:
    """All pages of a list."""
    wanted = {"statuses": (), "page_size": 7, "page_token": "", "order_by": "", **asked}
    found = []
    while True:
        stale = await cache.jobs(tenant, **wanted)
        assert stale is not None
        found.append(stale.data)
        wanted["page_token"] = stale.data["next_page_token"]
        if not wanted["page_token"]:
            return found
        assert is_ours(wanted["page_token"])


async def test_every_list_in_every_order(migrated_pool: Pool, cache: JobCache) -> None:
    await write(migrated_pool, *JOBS)
    filters: tuple[tuple[str, ...], ...] = ((), ("PAUSED",), ("FAILED", "QUEUED"), ("CANCELLED",))
    orders = ("", *KEYS, "name asc", *(f"{key} desc" for key in KEYS))
    for statuses, order in product(filters, orders):
        column, _, direction = (order or "created_at desc").partition(" ")
        matching = [each for each in JOBS if not statuses or each["status"] in statuses]
        matching.sort(key=lambda each: each["job_id"], reverse=direction == "desc")
        expected = sorted(matching, key=KEYS[column], reverse=direction == "desc")
        found = await pages(cache, statuses=statuses, order_by=order)
        assert [each for page in found for each in page["jobs"]] == expected, (statuses, order)
        assert {page["total_count"] for page in found} == {len(expected)}
        assert all(len(page["jobs"]) == 7 for page in found[:-1])


async def test_a_page_is_as_old_as_its_oldest_job(migrated_pool: Pool, cache: JobCache) -> None:
    await write(migrated_pool, *JOBS)
    await migrated_pool.write(
        "UPDATE mod_scaimind_jobs SET synced_at = now() - interval '100 seconds'"
        " WHERE job_id = 'job-38'"
    )
    asked: dict[str, Any] = {"statuses": (), "page_token": "", "order_by": ""}
    one = await cache.jobs("acme", page_size=1, **asked)
    two = await cache.jobs("acme", page_size=2, **asked)
    assert one is not None
    assert two is not None
    assert one.age < 100 <= two.age < 200
    assert two.synced_at < one.synced_at


async def test_an_empty_page_is_as_old_as_what_was_heard_of_the_tenant_last(
    migrated_pool: Pool, cache: JobCache
) -> None:
    asked: dict[str, Any] = {"page_size": 5, "page_token": "", "order_by": ""}
    assert await cache.jobs("acme", statuses=(), **asked) is None
    await write(migrated_pool, job())
    stale = await cache.jobs("acme", statuses=("FAILED",), **asked)
    assert stale is not None
    assert stale.data == {"jobs": [], "next_page_token": "", "total_count": 0}
    assert 0 <= stale.age < 100


async def test_no_read_shows_a_job_of_another_tenant(migrated_pool: Pool, cache: JobCache) -> None:
    await write(migrated_pool, *JOBS)
    # With the same id, and with ids that lie on either side.
    theirs = [job(name, "FAILED", created=99, ended=1) for name in ("job-07", "aaa", "zzz")]
    for tenant in ("acm", "acme2", "ACME", "acme "):
        await write(migrated_pool, *theirs, tenant=tenant)
    mine = {each["job_id"] for each in JOBS}
    for order in KEYS:
        found = [each for page in await pages(cache, order_by=order) for each in page["jobs"]]
        assert {each["job_id"] for each in found} == mine
        assert len(found) == len(JOBS)
    one = await cache.job("acme", "job-07")
    assert one is not None
    assert one.data["status"] == JOBS[7]["status"]
    assert await cache.job("acme", "zzz") is None
    assert await cache.job("acme' OR true --", "zzz") is None
    summary = await cache.summary("acme", days=90)
    assert summary.data["jobs"]["total"] == len(JOBS)
    assert {each["job_id"] for each in summary.data["newest_failures"]} <= mine
    nobody = await cache.summary("nobody", days=90)
    assert (nobody.data["jobs"]["total"], nobody.synced_at) == (0, None)


async def test_a_feed_of_one_tenant_changes_no_job_of_another(
    migrated_pool: Pool, cache: JobCache
) -> None:
    for tenant in ("acme", "other"):
        await write(migrated_pool, job(), tenant=tenant)
    writer = new_writer(migrated_pool)
    writer.record_status("other", "job-1", status="FAILED", message="", at=rfc3339(9))
    await writer.close()
    for tenant, status in (("acme", "TRAINING"), ("other", "FAILED")):
        stale = await cache.job(tenant, "job-1")
        assert stale is not None
        assert stale.data["status"] == status


def test_a_token_is_good_for_its_own_list_alone() -> None:
    mine = List("acme", JobFilters(["TRAINING"]), Order("name", False))
    token = mine.token("some name", "job-1")
    assert mine.read(token) == ("some name", "job-1")
    for other in (
        List("other", JobFilters(["TRAINING"]), Order("name", False)),
        List("acme", JobFilters(["TRAINING", "CHECKPOINTING"]), Order("name", False)),
        List("acme", JobFilters(["TRAINING"]), Order("name", True)),
        List("acme", JobFilters(["TRAINING"]), Order("created_at", False)),
    ):
        with pytest.raises(BadPage, match="Start without one"):
            other.read(token)


@pytest.mark.parametrize("order", [Order("created_at"), Order("priority"), Order("name")])
def test_a_token_that_was_made_up_is_refused(order: Order) -> None:
    mine = List("acme", JobFilters(), order)
    places = {"created_at": at(1), "priority": 5, "name": "a"}
    good = mine.token(places[order.column], "job-1")  # type: ignore[arg-type]  # of three kinds
    assert mine.read(good) == (places[order.column], "job-1")
    strange: tuple[Any, ...] = ("no time", 2**40, True, None, [], {})
    bad = [
        *(mine.token(each, "job-1") for each in strange),
        *(mine.token(each, "job-1") for each in ("a\0b",)),
        mine.token(places[order.column], "a\0b"),  # type: ignore[arg-type]  # of three kinds
        mine.token(places[order.column], 5),  # type: ignore[arg-type]  # that is the point
        *("cache.", "cache.!", "cache.AAAA", "cache.e30", "cache.W10", "cache.é", good + "A" * 9),
    ]
    for token in bad:
        if order.column == "name" and token == mine.token("no time", "job-1"):
            continue  # a name like any other
        with pytest.raises(BadPage):
            mine.read(token)


@pytest.mark.parametrize("text", ["size", "name up", "name desc desc", "name; DROP", "Name"])
def test_an_order_that_there_is_not(text: str) -> None:
    with pytest.raises(BadPage, match="order_by"):
        Order.parse(text)


async def test_the_summary_is_what_the_jobs_are(migrated_pool: Pool, cache: JobCache) -> None:
    await write(
        migrated_pool,
        job("w1", "QUEUED", gpus=1),
        job("w2", "PENDING", gpus=2),
        job("r1", "TRAINING", gpus=4),
        job("r2", "SCHEDULING", gpus=8),
        job("p1", "PAUSED", gpus=16),
        job("c1", "COMPLETED", gpus=32),
        *(
            job(f"f{n:02}", "FAILED", ended=n, error_message=f"e{n}", message="m", user_id="ann")
            for n in range(12)
        ),
    )
    summary = await cache.summary("acme", days=7)
    assert summary.synced_at is not None
    jobs = summary.data["jobs"]
    assert jobs["total"] == 18
    assert {name: count for name, count in jobs["by_status"].items() if count} == {
        "QUEUED": 1,
        "PENDING": 1,
        "TRAINING": 1,
        "SCHEDULING": 1,
        "PAUSED": 1,
        "COMPLETED": 1,
        "FAILED": 12,
    }
    assert len(jobs["by_status"]) == 13
    assert summary.data["gpus"] == {"requested": 15, "in_use": 12}
    assert [each["job_id"] for each in summary.data["newest_failures"]] == [
        f"f{n:02}" for n in range(11, 1, -1)
    ]
    assert summary.data["newest_failures"][0] == {
        "job_id": "f11",
        "name": "",
        "user_id": "ann",
        "message": "m",
        "error_message": "e11",
        "ended_at": rfc3339(11),
    }
    # The jobs of these tests are older than the days that were asked for.
    assert summary.data["run_times"] == []


async def test_run_times_are_those_of_the_day_within_their_promise(
    migrated_pool: Pool, cache: JobCache
) -> None:
    minutes = [0.001, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233]
    await write(
        migrated_pool,
        *(
            job(f"c{n}", "COMPLETED", started=0, ended=took, revision=1)
            for n, took in enumerate(minutes)
        ),
        job("f", "FAILED", started=0, ended=500),
        job("running", "TRAINING", started=0),
        job("later", "COMPLETED", started=0, ended=60 * 24 + 60),
    )
    # From the coordinator's time to today.
    await migrated_pool.write(
        "UPDATE mod_scaimind_jobs SET started_at = started_at + days, ended_at = ended_at + days"
        " FROM (SELECT ((now() AT TIME ZONE 'UTC')::date - '2026-05-02'::date)"
        " * interval '1 day' AS days) AS shift"
    )
    days = (await cache.summary("acme", days=7)).data["run_times"]
    assert [each["jobs"] for each in days] == [len(minutes), 1]
    exact = sorted(max(took * 60, 1) for took in minutes)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        true = exact[-(-int(share * 100) * len(exact) // 100) - 1]
        assert days[0][f"{name}_seconds"] == pytest.approx(true, rel=0.026, abs=0.06)
    assert days[1]["p50_seconds"] == pytest.approx(25 * 3600, rel=0.026)
    assert len((await cache.summary("acme", days=1)).data["run_times"]) == 1


async def test_the_tallies_are_what_counting_gives(migrated_pool: Pool) -> None:
    """Over inserts, updates, changes by feeds and deletions, several of each in a statement."""
    await write(migrated_pool, *JOBS)
    await write(migrated_pool, *({**each, "revision": 2, "status": "FAILED"} for each in JOBS[:9]))
    writer = new_writer(migrated_pool)
    for each in JOBS[20:30]:
        writer.record_status("acme", each["job_id"], status="COMPLETED", message="", at=rfc3339(99))
    await writer.close()
    await write(migrated_pool, *JOBS[:5], tenant="other")
    await migrated_pool.write("DELETE FROM mod_scaimind_jobs WHERE mod(gpus, 5) = 0")

    counted = await migrated_pool.read(
        "SELECT tenant_id, status, count(*), sum(gpus) FROM mod_scaimind_jobs GROUP BY 1, 2"
    )
    kept = await migrated_pool.read(
        "SELECT tenant_id, status, jobs, gpus FROM mod_scaimind_job_counts WHERE jobs > 0"
    )
    assert set(kept) == set(counted)
    [(completed,)] = await migrated_pool.read(
        "SELECT count(*) FROM mod_scaimind_jobs WHERE status = 10 AND ended_at IS NOT NULL"
    )
    [(tallied, least)] = await migrated_pool.read(
        "SELECT sum(jobs), min(jobs) FROM mod_scaimind_job_run_times"
    )
    assert (tallied, least >= 0) == (completed, True)
    await migrated_pool.write("TRUNCATE mod_scaimind_jobs")
    for table in ("counts", "run_times"):
        assert await migrated_pool.read(f"SELECT * FROM mod_scaimind_job_{table}") == []
