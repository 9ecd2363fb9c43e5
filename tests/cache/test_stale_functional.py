"""Answers from the cache while the coordinator is away: to whom, when, and how they are marked."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import StatusCode

from app.database.pool import Pool
from generated.mindcoordinator.v1.evaluations_pb2 import Evaluation
from generated.mindcoordinator.v1.jobs_pb2 import (
    JOB_STATUS_COMPLETED,
    JOB_STATUS_EVALUATING,
    JOB_STATUS_FAILED,
    JOB_STATUS_QUEUED,
    JOB_STATUS_TRAINING,
    Job,
    ListJobsResponse,
    SubmitJobResponse,
)
from generated.mindcoordinator.v1.watch_pb2 import (
    StatusChange,
    WatchEnd,
    WatchJobResponse,
    WatchStart,
)
from tests.api.endpoints import SUBMISSION
from tests.cache.jobs import at, rfc3339, value
from tests.cache.server import Gateway, gateway_on
from tests.databases import patient
from tests.scripted_coordinator import Failure

HOUR = {"Cache_Control": "stale-if-error=3600"}
AWAY = Failure(StatusCode.UNAVAILABLE, "connection refused by 10.0.0.7")


@pytest.fixture
async def gateway(migrated_dsn: str) -> AsyncIterator[Gateway]:
    async with gateway_on(migrated_dsn) as gateway:
        yield gateway


@pytest.fixture
async def database(migrated_dsn: str) -> AsyncIterator[Pool]:
    pool = Pool(patient(migrated_dsn, pool_min=0))
    yield pool
    await pool.shut()


async def written(gateway: Gateway, count: int) -> None:
    name = "scaimind_cache_written_jobs_total"
    await gateway.until(lambda: value(gateway.metrics.registry, name) >= count)


def away(gateway: Gateway) -> None:
    for method in ("GetJob", "ListJobs"):
        gateway.coordinator.answer(method, AWAY)


def reads(gateway: Gateway, read: str, result: str) -> float:
    name = "scaimind_cache_reads_total"
    return value(gateway.metrics.registry, name, read=read, result=result)


JOBS = [
    Job(job_id=f"job-{n}", name=f"n{n}", status=status, revision=1, tenant_id="acme")
    for n, status in enumerate([JOB_STATUS_TRAINING, JOB_STATUS_FAILED, JOB_STATUS_QUEUED] * 2)
]


async def list_seen(gateway: Gateway) -> Any:
    """The jobs are listed while all is well, and the coordinator goes."""
    gateway.coordinator.answer("ListJobs", ListJobsResponse(jobs=JOBS, total_count=6))
    status, body = await gateway.ask("/jobs")
    assert status == 200
    assert body.keys() == {"data"}
    await written(gateway, 6)
    away(gateway)
    return body["data"]


async def test_a_job_is_answered_as_it_was_and_marked(gateway: Gateway) -> None:
    gateway.coordinator.answer("GetJob", JOBS[0])
    status, fresh = await gateway.ask("/jobs/job-0", **HOUR)
    assert (status, fresh.keys()) == (200, {"data"})
    await written(gateway, 1)
    away(gateway)

    status, body = await gateway.ask("/jobs/job-0")
    assert (status, body["error"]["code"]) == (503, "COORDINATOR_UNAVAILABLE")

    status, body = await gateway.ask("/jobs/job-0", **HOUR)
    assert (status, body["data"]) == (200, fresh["data"])
    assert body["meta"].keys() == {"stale", "synced_at"}
    assert body["meta"]["stale"] is True
    assert body["meta"]["synced_at"].endswith("Z")
    assert reads(gateway, "job", "answered") == 1

    status, body = await gateway.ask("/jobs/job-9", **HOUR)
    assert (status, body["error"]["code"]) == (503, "COORDINATOR_UNAVAILABLE")
    assert reads(gateway, "job", "missing") == 1


async def test_no_older_than_was_asked_for_and_the_age_is_told(
    gateway: Gateway, database: Pool
) -> None:
    await list_seen(gateway)
    await database.write(
        "UPDATE mod_scaimind_jobs SET synced_at = now() - interval '90.5 s' WHERE job_id = 'job-1'"
    )
    for path in ("/jobs/job-1", "/jobs"):
        status, _ = await gateway.ask(path, Cache_Control="stale-if-error=90")
        assert status == 503
        status, _ = await gateway.ask(path, Cache_Control="max-age=5, Stale-If-Error=300")
        assert status == 200
    assert reads(gateway, "job", "too_old") == reads(gateway, "jobs", "too_old") == 1
    # A page without it is young.
    status, _ = await gateway.ask("/jobs?status=TRAINING", Cache_Control="stale-if-error=90")
    assert status == 200


async def test_the_age_header(gateway: Gateway, database: Pool) -> None:
    await list_seen(gateway)
    await database.write("UPDATE mod_scaimind_jobs SET synced_at = now() - interval '90.5 s'")
    async with gateway.client.get(
        "/v1/modules/scaimind/jobs",
        headers={**gateway.authorization(), "Cache-Control": "stale-if-error=3600"},
    ) as response:
        assert 90 <= int(response.headers["Age"]) < 3600
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "code",
    [code for code in StatusCode if code not in (StatusCode.OK, StatusCode.UNAVAILABLE)],
    ids=lambda code: code.name,
)
async def test_no_other_failure_is_covered_up(gateway: Gateway, code: StatusCode) -> None:
    await list_seen(gateway)
    for method in ("GetJob", "ListJobs"):
        gateway.coordinator.answer(method, Failure(code, "a reason"))
    for path in ("/jobs/job-0", "/jobs"):
        status, body = await gateway.ask(path, **HOUR)
        # On its way out, a coordinator ends its calls with CANCELLED.
        if code is StatusCode.CANCELLED:
            assert (status, body["meta"]["stale"]) == (200, True)
        else:
            assert status >= 400


async def test_lists_have_the_same_filters_and_pages_of_their_own(gateway: Gateway) -> None:
    fresh = await list_seen(gateway)
    status, body = await gateway.ask("/jobs?order_by=name", **HOUR)
    assert (status, body["data"]) == (200, fresh)

    found: list[str] = []
    path = "/jobs?status=FAILED&status=QUEUED&page_size=3&order_by=name desc"
    token = ""
    for _ in range(2):
        status, body = await gateway.ask(path + f"&page_token={token}", **HOUR)
        assert (status, body["data"]["total_count"]) == (200, 4)
        found += [each["job_id"] for each in body["data"]["jobs"]]
        token = body["data"]["next_page_token"]
    assert (found, token) == (["job-5", "job-4", "job-2", "job-1"], "")


async def test_a_list_cannot_be_continued_by_the_other_side(gateway: Gateway) -> None:
    await list_seen(gateway)
    # A token of the coordinator's, while it is away.
    status, body = await gateway.ask("/jobs?page_token=theirs", **HOUR)
    assert (status, body["error"]["code"]) == (503, "COORDINATOR_UNAVAILABLE")
    assert "start without page_token" in body["error"]["message"]
    assert "retry_after" in body["error"]

    status, body = await gateway.ask("/jobs?page_size=2", **HOUR)
    token = body["data"]["next_page_token"]
    # Ours, for another list.
    status, body = await gateway.ask(f"/jobs?page_size=2&status=FAILED&page_token={token}", **HOUR)
    assert (status, body["error"]["code"]) == (400, "INVALID_ARGUMENT")
    # Ours, without leave for stale answers.
    status, body = await gateway.ask(f"/jobs?page_size=2&page_token={token}")
    assert (status, body["error"]["code"]) == (503, "COORDINATOR_UNAVAILABLE")
    # Ours, once the coordinator is back, which says that it does not know it.
    gateway.coordinator.answer("ListJobs", Failure(StatusCode.INVALID_ARGUMENT, "page_token: what"))
    status, body = await gateway.ask(f"/jobs?page_size=2&page_token={token}", **HOUR)
    assert (status, body["error"]["code"]) == (400, "INVALID_ARGUMENT")
    assert "is available again" in body["error"]["message"]
    # An order that the cache does not have.
    away(gateway)
    status, body = await gateway.ask("/jobs?order_by=size", **HOUR)
    assert (status, body["error"]["code"]) == (400, "INVALID_ARGUMENT")


async def test_another_tenant_gets_nothing_of_it(gateway: Gateway) -> None:
    await list_seen(gateway)
    for path in ("/jobs", "/jobs/job-0"):
        assert (await gateway.ask(path, tenant="other", **HOUR))[0] == 503
    status, body = await gateway.ask("/summary", tenant="other")
    assert (status, body["data"]["jobs"]["total"], body["meta"]["synced_at"]) == (200, 0, None)


async def test_the_summary_needs_no_coordinator(gateway: Gateway) -> None:
    await list_seen(gateway)
    await gateway.coordinator.stop()
    status, body = await gateway.ask("/summary?days=30")
    assert status == 200
    assert body["data"]["jobs"]["by_status"]["FAILED"] == 2
    assert [each["job_id"] for each in body["data"]["newest_failures"]] == ["job-4", "job-1"]
    assert body["meta"]["synced_at"].endswith("Z")
    for query in ("days=0", "days=91", "day=3"):
        assert (await gateway.ask(f"/summary?{query}"))[0] == 422


async def test_submissions_control_and_evaluations_are_seen(gateway: Gateway) -> None:
    coordinator = gateway.coordinator
    coordinator.answer(
        "SubmitJob", SubmitJobResponse(job_id="new", status=JOB_STATUS_QUEUED, message="waits")
    )
    answers = {
        "Cancel": Job(job_id="cancelled", revision=3, status=JOB_STATUS_FAILED),
        "Pause": Job(job_id="paused", revision=3),
        "Resume": Job(job_id="resumed", revision=3),
        "Retry": Job(job_id="child", revision=3, parent_job_id="old"),
    }
    for name, answer in answers.items():
        coordinator.answer(f"{name}Job", answer)
    coordinator.answer("SubmitEvaluation", Evaluation(evaluation_id="e1"))
    coordinator.answer(
        "GetEvaluation", Evaluation(evaluation_id="e2", status=JOB_STATUS_EVALUATING)
    )

    assert (await gateway.post("/jobs", SUBMISSION))[0] == 201
    for name, answer in answers.items():
        job_id = answer.parent_job_id or answer.job_id
        assert (await gateway.post(f"/jobs/{job_id}/{name.lower()}", {}))[0] == 200
    evaluation = {"job_id": "old", "benchmarks": [{"name": "perplexity"}]}
    assert (await gateway.post("/evaluations", evaluation))[0] == 201
    assert (await gateway.ask("/evaluations/e2"))[0] == 200
    await written(gateway, 7)
    away(gateway)

    status, body = await gateway.ask("/jobs/new", **HOUR)
    assert status == 200
    new = body["data"]
    assert (new["status"], new["message"], new["tenant_id"]) == ("QUEUED", "waits", "acme")
    assert (new["name"], new["user_id"], new["labels"]) == ("my job", "ann", {"team": "nlp"})
    assert new["resource_config"]["gpu_count"] == 2
    assert new.keys() <= {field.name for field in Job.DESCRIPTOR.fields}
    for job_id in ("cancelled", "paused", "resumed", "child", "e1"):
        assert (await gateway.ask(f"/jobs/{job_id}", **HOUR))[0] == 200
    status, body = await gateway.ask("/jobs/e2", **HOUR)
    assert (body["data"]["status"], body["data"]["labels"]) == (
        "EVALUATING",
        {"type": "evaluation"},
    )


async def test_what_a_feed_tells_is_seen(gateway: Gateway) -> None:
    """Over a real stream: the job is read when it is joined, and changes while it is watched."""
    seen = Job(job_id="job-1", status=JOB_STATUS_TRAINING, revision=5, name="whole")
    seen.updated_at.FromDatetime(at(1))
    change = StatusChange(status=JOB_STATUS_COMPLETED, message="done")
    change.timestamp.FromDatetime(at(2))
    unplaced = StatusChange(status=JOB_STATUS_QUEUED, message="without its time")
    gateway.coordinator.answer("GetJob", seen)
    gateway.coordinator.answer(
        "WatchJob",
        [
            WatchJobResponse(start=WatchStart(epoch="e", status=JOB_STATUS_TRAINING)),
            WatchJobResponse(status_changes=[change, unplaced]),
            WatchJobResponse(end=WatchEnd(status=JOB_STATUS_COMPLETED)),
        ],
    )
    async with gateway.client.get(
        "/v1/modules/scaimind/jobs/job-1/logs", headers=gateway.authorization()
    ) as stream:
        assert b"event: end" in await stream.read()
    await written(gateway, 1)
    away(gateway)

    async def there() -> bool:
        _, body = await gateway.ask("/jobs/job-1", **HOUR)
        return bool(body["data"]["status"] == "COMPLETED")

    await gateway.until(there)
    _, body = await gateway.ask("/jobs/job-1", **HOUR)
    told = body["data"]
    assert (told["message"], told["updated_at"], told["ended_at"]) == (
        "done",
        rfc3339(2),
        rfc3339(2),
    )
    assert (told["revision"], told["name"]) == (5, "whole")
