"""A deleted job in the cache: no replica shows it any more, whatever it still holds of it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from grpc import StatusCode

from app.cache.jobs import JobCache
from app.database.pool import Pool
from generated.mindcoordinator.v1 import jobs_pb2
from generated.mindcoordinator.v1.watch_jobs_pb2 import (
    JobChange,
    WatchJobsResponse,
    WatchJobsStart,
)
from tests.cache.jobs import at, job, new_writer, rfc3339, write
from tests.cache.server import Gateway, gateway_on
from tests.scripted_coordinator import Failure

HOUR = {"Cache_Control": "stale-if-error=3600"}
AWAY = Failure(StatusCode.UNAVAILABLE, "connection refused")
LISTED: dict[str, Any] = {"page_size": 10, "page_token": "", "order_by": "created_at"}


@pytest.fixture
async def replicas(migrated_dsn: str) -> AsyncIterator[tuple[Gateway, Gateway]]:
    async with gateway_on(migrated_dsn) as one, gateway_on(migrated_dsn) as two:
        yield one, two


async def delete(gateway: Gateway, job_id: str) -> tuple[int, Any]:
    path = f"/v1/modules/scaimind/jobs/{job_id}"
    async with gateway.client.delete(path, headers=gateway.authorization()) as response:
        return response.status, await response.json()


async def ids(cache: JobCache, **wanted: Any) -> list[str]:
    stale = await cache.jobs("acme", **{**LISTED, **wanted})
    return [] if stale is None else [each["job_id"] for each in stale.data["jobs"]]


async def test_no_replica_shows_it_once_it_is_deleted(replicas: tuple[Gateway, Gateway]) -> None:
    one, _ = replicas
    for gateway in replicas:
        gateway.coordinator.answer("GetJob", jobs_pb2.Job(job_id="job-1", revision=3))
        assert (await gateway.ask("/jobs/job-1"))[0] == 200
    one.coordinator.answer("DeleteJob", jobs_pb2.DeleteJobResponse(freed_bytes=5))
    status, body = await delete(one, "job-1")
    assert (status, body["data"]) == (200, {"job_id": "job-1", "freed_bytes": 5})
    for gateway in replicas:
        gateway.coordinator.answer("GetJob", AWAY)
        gateway.coordinator.answer("ListJobs", AWAY)
        # Also what a replica had not written yet.
        assert (await gateway.ask("/jobs/job-1", **HOUR))[0] == 503
        assert (await gateway.ask("/jobs", **HOUR))[1].get("data", {}).get("jobs", []) == []
    one.coordinator.answer("DeleteJob", Failure(StatusCode.NOT_FOUND, "the job does not exist"))
    assert (await delete(one, "job-1"))[0] == 404


async def test_nothing_that_is_written_later_brings_it_back(
    migrated_pool: Pool, cache: JobCache
) -> None:
    await write(migrated_pool, job("kept"), job("gone", "COMPLETED", started=1, ended=2))
    writer, other = new_writer(migrated_pool), new_writer(migrated_pool)
    await writer.delete_job("acme", "gone")
    await writer.delete_job("acme", "never seen")
    other.record_job("acme", job("gone", "COMPLETED", revision=2**62, ended=9))
    other.record_job("acme", job("never seen", revision=9))
    other.record_status("acme", "gone", status="FAILED", message="", at=rfc3339(10_000_000))
    await other.close()
    await writer.close()
    for wanted in ({}, {"statuses": ("COMPLETED",)}, {"name_contains": ""}, {"user_ids": [""]}):
        found = await ids(cache, **wanted)
        assert found in (["kept"], []), wanted
    assert await cache.job("acme", "gone") is None
    assert await cache.job("acme", "never seen") is None
    summary = await cache.summary("acme", days=36500)
    assert summary.data["jobs"]["total"] == 1
    assert summary.data["run_times"] == []


async def test_only_what_was_seen_is_marked_for_a_job_that_there_never_was(
    migrated_pool: Pool,
) -> None:
    await write(migrated_pool, job("seen"))
    writer = new_writer(migrated_pool)
    await writer.delete_job("acme", "guessed", known=True)
    await writer.delete_job("acme", "seen", known=True)
    await writer.close()
    rows = await migrated_pool.read("SELECT job_id, status FROM mod_scaimind_jobs")
    assert rows == [("seen", -1)]


async def test_a_job_that_the_coordinator_deleted_itself_is_forgotten_when_it_is_asked_for(
    replicas: tuple[Gateway, Gateway], migrated_pool: Pool
) -> None:
    gateway, _ = replicas
    await write(migrated_pool, job("expired"))
    gateway.coordinator.answer("GetJob", Failure(StatusCode.NOT_FOUND, "the job does not exist"))
    assert (await gateway.ask("/jobs/expired", **HOUR))[0] == 404

    async def forgotten() -> bool:
        rows = await migrated_pool.read("SELECT status FROM mod_scaimind_jobs")
        return rows == [(-1,)]

    await gateway.until(forgotten)


async def test_a_deletion_among_a_tenants_changes_is_heeded(
    replicas: tuple[Gateway, Gateway], migrated_pool: Pool
) -> None:
    gateway, _ = replicas
    await write(migrated_pool, job("expired"), job("kept"))
    gateway.coordinator.answer(
        "WatchJobs",
        [
            WatchJobsResponse(start=WatchJobsStart(epoch="e1", reset=True), synced=1),
            WatchJobsResponse(changes=[JobChange(version=2, deleted_job_id="expired")]),
        ],
    )
    path = "/v1/modules/scaimind/events"
    async with gateway.client.get(path, headers=gateway.authorization()):

        async def forgotten() -> bool:
            rows = await migrated_pool.read(
                "SELECT job_id FROM mod_scaimind_jobs WHERE status = -1"
            )
            return rows == [("expired",)]

        await gateway.until(forgotten)


async def test_marks_go_after_some_days(migrated_pool: Pool) -> None:
    writer = new_writer(migrated_pool, purge_interval=0.01)
    await writer.delete_job("acme", "old")
    await migrated_pool.write("UPDATE mod_scaimind_jobs SET synced_at = now() - interval '4 days'")
    await writer.delete_job("acme", "new")
    left: list[Any] = []
    while left != [("new",)]:
        left = await migrated_pool.read("SELECT job_id FROM mod_scaimind_jobs")
    await writer.close()


def labelled(job_id: str, name: str, user: str, created: float, **labels: str) -> Any:
    return job(job_id, created=created, name=name, user_id=user, labels=labels)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"label_filter": {"team": "nlp"}}, ["a", "b"]),
        ({"label_filter": {"team": "nlp", "draft": "yes"}}, ["b"]),
        ({"label_filter": {"team": "nl"}}, []),
        ({"name_contains": "STRASSE"}, ["a"]),
        ({"name_contains": "100%_"}, ["c"]),
        ({"name_contains": "%"}, ["c"]),
        ({"user_ids": ["ann"]}, ["a", "c"]),
        ({"user_ids": ["ann", "bob"]}, ["a", "b", "c"]),
        ({"created_after": at(2)}, ["b", "c", "d"]),
        ({"kind": "evaluation"}, ["d"]),
        ({"parent_job_id": "a"}, ["c"]),
        ({"parent_job_id": "a", "kind": "evaluation"}, []),
        ({"parent_job_id": "b"}, []),
        ({"kind": "training"}, ["a", "b", "c"]),
        ({"kind": "training", "user_ids": ["ann"], "created_after": at(2)}, ["c"]),
        ({"statuses": ["FAILED"], "user_ids": ["ann"]}, []),
        ({"statuses": ["TRAINING"], "user_ids": ["ann"]}, ["a", "c"]),
    ],
)
async def test_lists_obey_the_filters(
    migrated_pool: Pool, cache: JobCache, wanted: Any, found: list[str]
) -> None:
    await write(
        migrated_pool,
        labelled("a", "Lange Stra\u00dfe", "ann", 1, team="nlp"),
        labelled("b", "b", "bob", 2, team="nlp", draft="yes", nul="a\0b"),
        job("c", created=3, name="100%_sure", user_id="ann", parent_job_id="a"),
        labelled("d", "d", "carl", 4, type="evaluation"),
    )
    assert await ids(cache, **wanted) == found
    stale = await cache.jobs("acme", **{**LISTED, **wanted})
    assert stale is not None
    assert stale.data["total_count"] == len(found)
    pages, token = [], ""
    for _ in range(len(found)):
        page = await cache.jobs("acme", **{**LISTED, **wanted, "page_size": 1, "page_token": token})
        assert page is not None
        pages += [each["job_id"] for each in page.data["jobs"]]
        token = page.data["next_page_token"]
    assert (pages, token) == (found, "")


async def test_the_filters_arrive_at_the_cache(replicas: tuple[Gateway, Gateway]) -> None:
    gateway, _ = replicas
    gateway.coordinator.answer(
        "ListJobs",
        jobs_pb2.ListJobsResponse(
            jobs=[
                jobs_pb2.Job(job_id="a", name="Nightly", user_id="ann", revision=1),
                jobs_pb2.Job(job_id="b", name="b", labels={"type": "evaluation"}, revision=1),
            ],
            total_count=2,
        ),
    )
    assert (await gateway.ask("/jobs"))[0] == 200
    for method in ("ListJobs", "GetClusterStatus"):
        gateway.coordinator.answer(method, AWAY)

    async def shown(query: str) -> list[str]:
        status, body = await gateway.ask(f"/jobs?{query}", **HOUR)
        return [each["job_id"] for each in body["data"]["jobs"]] if status == 200 else []

    async def both() -> bool:
        return len(await shown("order_by=name")) == 2

    await gateway.until(both)
    assert await shown("name=NIGHT") == ["a"]
    assert await shown("user_id=ann") == ["a"]
    assert await shown("label=type%3Devaluation") == ["b"]
    assert await shown("kind=evaluation") == ["b"]
    assert await shown(f"created_after={datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}") == []
