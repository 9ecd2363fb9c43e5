"""Finding, changing and deleting jobs over HTTP: filters, merge patches, versions, deletions."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from app.api.app_keys import FEATURES
from generated.mindcoordinator.v1 import cluster_pb2, jobs_pb2
from tests.api.conftest import Gateway
from tests.api.endpoints import PREFIX
from tests.scripted_coordinator import Failure

JOB = f"{PREFIX}/jobs/job-1"
ANSWER = jobs_pb2.Job(job_id="job-1", tenant_id="acme", name="n", revision=7)


def announce(gateway: Gateway, *features: str) -> None:
    gateway.coordinator.answer(
        "GetClusterStatus", cluster_pb2.ClusterStatus(features=list(features))
    )


async def test_a_list_is_filtered_by_the_coordinator(gateway: Gateway) -> None:
    announce(gateway, "job_filters", "parent_filter")
    answer = await gateway.ask(
        "GET",
        f"{PREFIX}/jobs?label=team%3Dnlp&label=a%3Db%3Dc&name=Nightly&user_id=ann&user_id=bob"
        "&created_after=2026-11-01T00:00:00Z&kind=evaluation&parent_job_id=job-1",
    )
    assert answer.status == 200
    [asked] = gateway.coordinator.requests("ListJobs")
    assert asked.message == jobs_pb2.ListJobsRequest(
        page_size=20,
        label_filter={"team": "nlp", "a": "b=c"},
        name_contains="Nightly",
        user_ids=["ann", "bob"],
        created_after=Timestamp(seconds=1793491200),
        kind=jobs_pb2.JOB_KIND_EVALUATION,
        parent_job_id="job-1",
    )


@pytest.mark.parametrize(
    "query",
    [
        *("label=team", "label=%3Dnlp", "label=a%3Db&label=a%3Dc", "kind=both", "name="),
        *("created_after=yesterday", "user_id=", "labels=a%3Db"),
    ],
)
async def test_a_filter_that_is_none_is_refused(gateway: Gateway, query: str) -> None:
    answer = await gateway.ask("GET", f"{PREFIX}/jobs?{query}")
    if query == "name=":
        assert answer.status == 200
        return
    assert answer.status == 422, answer.json
    assert gateway.coordinator.requests("ListJobs") == []


@pytest.mark.parametrize("query", ["name=a", "user_id=a", "kind=training", "parent_job_id=a"])
async def test_a_coordinator_without_filters_is_not_asked(gateway: Gateway, query: str) -> None:
    answer = await gateway.ask("GET", f"{PREFIX}/jobs?{query}")
    assert (answer.status, answer.error["code"]) == (501, "NOT_IMPLEMENTED")
    assert gateway.coordinator.requests("ListJobs") == []
    # Labels are of the first version of the contract.
    assert (await gateway.ask("GET", f"{PREFIX}/jobs?label=a%3Db")).status == 200


async def test_a_list_that_does_not_pass_its_filters_breaks_the_contract(gateway: Gateway) -> None:
    announce(gateway, "job_filters", "parent_filter")
    gateway.coordinator.answer("ListJobs", jobs_pb2.ListJobsResponse(jobs=[ANSWER]))
    answer = await gateway.ask("GET", f"{PREFIX}/jobs?name=N")
    assert answer.status == 200
    for query in ("name=m", "user_id=bob", "parent_job_id=job-0"):
        assert (await gateway.ask("GET", f"{PREFIX}/jobs?{query}")).status == 500


async def test_a_job_has_its_revision_as_a_strong_tag(gateway: Gateway) -> None:
    gateway.coordinator.answer("GetJob", ANSWER)
    answer = await gateway.ask("GET", JOB)
    assert answer.headers["ETag"] == '"7"'
    for tags in ('"7"', 'W/"7"', '"6", "7"', "*"):
        same = await gateway.ask("GET", JOB, headers={"If-None-Match": tags})
        assert (same.status, same.body, same.headers["ETag"]) == (304, b"", '"7"'), tags
    for tags in ('"6"', '"77"', ""):
        other = await gateway.ask("GET", JOB, headers={"If-None-Match": tags} if tags else {})
        assert other.status == 200, tags
    wrong = await gateway.ask("GET", JOB, headers={"If-None-Match": "7"})
    assert (wrong.status, wrong.error["code"]) == (400, "MALFORMED_REQUEST")
    gateway.coordinator.answer("GetJob", jobs_pb2.Job(job_id="job-1"))
    assert "ETag" not in (await gateway.ask("GET", JOB)).headers


@pytest.mark.parametrize("kind", ["application/merge-patch+json", "application/json"])
async def test_a_job_is_changed_by_a_merge_patch(gateway: Gateway, kind: str) -> None:
    gateway.coordinator.answer("UpdateJob", ANSWER)
    answer = await gateway.ask(
        "PATCH",
        JOB,
        data=b'{"name": "n", "labels": {"team": "nlp", "draft": null}}',
        headers={"Content-Type": kind, "If-Match": '"7"'},
    )
    assert (answer.status, answer.headers["ETag"]) == (200, '"7"')
    [asked] = gateway.coordinator.requests("UpdateJob")
    assert (asked.message.name, dict(asked.message.labels)) == ("n", {"team": "nlp"})
    assert list(asked.message.update_mask.paths) == ["name", "labels.team", "labels.draft"]
    assert asked.message.revision == 7


async def test_null_removes_all_labels(gateway: Gateway) -> None:
    gateway.coordinator.answer("UpdateJob", ANSWER)
    assert (await gateway.ask("PATCH", JOB, json={"labels": None})).status == 200
    [asked] = gateway.coordinator.requests("UpdateJob")
    assert list(asked.message.update_mask.paths) == ["labels"]


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"status": "FAILED"}, "status"),
        ({"labels": {"type": "evaluation"}}, "labels.type"),
        ({"labels": {"type": None}}, "labels.type"),
        ({"labels": {"scaimind/kind": "x"}}, "labels.scaimind/kind"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": []}, "labels"),
    ],
)
async def test_what_cannot_be_changed_is_told(gateway: Gateway, patch: Any, field: str) -> None:
    answer = await gateway.ask("PATCH", JOB, json=patch)
    assert answer.status == 422
    assert [each["field"] for each in answer.error["details"]] == [field]
    assert gateway.coordinator.requests("UpdateJob") == []


async def test_a_stale_version_is_not_changed(gateway: Gateway) -> None:
    gateway.coordinator.answer("GetJob", ANSWER)
    for tags in ('"6", "5"', 'W/"7"', '"0"', '"x"', '"99999999999999999999"'):
        answer = await gateway.ask("PATCH", JOB, json={"name": "n"}, headers={"If-Match": tags})
        assert (answer.status, answer.error["code"]) == (412, "PRECONDITION_FAILED"), tags
    assert gateway.coordinator.requests("UpdateJob") == []
    gateway.coordinator.answer("UpdateJob", Failure(StatusCode.ABORTED, "it has another revision"))
    answer = await gateway.ask("PATCH", JOB, json={"name": "n"}, headers={"If-Match": '"6"'})
    assert (answer.status, answer.error["code"]) == (412, "PRECONDITION_FAILED")
    gateway.coordinator.answer("UpdateJob", ANSWER)
    for tags in ("*", '"6", "7"'):
        answer = await gateway.ask("PATCH", JOB, json={"name": "n"}, headers={"If-Match": tags})
        assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "rpc", "body"),
    [("PATCH", "UpdateJob", {"name": "n"}), ("DELETE", "DeleteJob", None)],
)
async def test_a_coordinator_that_cannot(
    gateway: Gateway, method: str, rpc: str, body: Any
) -> None:
    gateway.coordinator.answer(rpc, Failure(StatusCode.UNIMPLEMENTED, "not here"))
    answer = await gateway.ask(method, JOB, json=body)
    assert (answer.status, answer.error["code"]) == (501, "NOT_IMPLEMENTED")


async def test_a_key_of_a_retry_is_passed_on_where_it_is_known(gateway: Gateway) -> None:
    gateway.coordinator.answer("RetryJob", jobs_pb2.Job(job_id="child", parent_job_id="job-1"))
    key = {"Idempotency-Key": "once"}
    assert (await gateway.ask("POST", f"{JOB}/retry")).status == 200
    refused = await gateway.ask("POST", f"{JOB}/retry", headers=key)
    assert (refused.status, refused.error["code"]) == (501, "NOT_IMPLEMENTED")
    await gateway.app[FEATURES].close()
    announce(gateway, "retry_keys")
    gateway.app[FEATURES]._kept_until = None
    assert (await gateway.ask("POST", f"{JOB}/retry", headers=key)).status == 200
    keys = [each.message.idempotency_key for each in gateway.coordinator.requests("RetryJob")]
    assert keys == ["", "once"]
    gateway.coordinator.answer("RetryJob", Failure(StatusCode.ALREADY_EXISTS, "used"))
    refused = await gateway.ask("POST", f"{JOB}/retry", headers=key)
    assert (refused.status, refused.error["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
