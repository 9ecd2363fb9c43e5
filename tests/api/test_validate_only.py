"""A submission that is only checked, and records of data that are only shown."""

from typing import Any

import pytest
import structlog
from grpc import StatusCode

from generated.mindcoordinator.v1.cluster_pb2 import ClusterStatus
from generated.mindcoordinator.v1.data_pb2 import (
    DataPreview,
    DataValidation,
    ValidateDataResponse,
)
from generated.mindcoordinator.v1.jobs_pb2 import JobStatus, SubmissionCheck, SubmitJobResponse
from tests.api.conftest import Gateway
from tests.api.endpoints import ENDPOINTS, PREFIX
from tests.scripted_coordinator import Failure

JOBS = f"{PREFIX}/jobs"
[SUBMIT] = [each for each in ENDPOINTS if each.rpc == "SubmitJob"]
CHECKED = SubmitJobResponse(
    status=JobStatus.JOB_STATUS_QUEUED,
    message="Waiting in the queue.",
    estimated_wait_seconds=70,
    check=SubmissionCheck(
        would_start=False,
        waiting_for="Resources that other jobs hold.",
        warnings=["resource_config.gpu_type: has no effect without gpu_count."],
    ),
)


@pytest.fixture
def able(gateway: Gateway) -> Gateway:
    """A gateway whose coordinator can check submissions."""
    gateway.coordinator.answer("GetClusterStatus", ClusterStatus(features=["validate_only"]))
    gateway.coordinator.answer("SubmitJob", CHECKED)
    return gateway


async def test_what_would_become_of_a_submission(able: Gateway) -> None:
    with structlog.testing.capture_logs() as events:
        response = await able.ask(
            "POST",
            f"{JOBS}?validate_only=true",
            json=SUBMIT.body,
            headers={"Idempotency-Key": "once"},
        )
    assert response.status == 200
    assert response.json == {
        "data": {
            "valid": True,
            "would_start": False,
            "estimated_wait_seconds": 70,
            "waiting_for": "Resources that other jobs hold.",
            "warnings": ["resource_config.gpu_type: has no effect without gpu_count."],
        }
    }
    [arrived] = able.coordinator.requests("SubmitJob")
    assert arrived.message.validate_only
    assert arrived.message.idempotency_key == ""
    assert arrived.message.name == (SUBMIT.body or {})["name"]
    [audited] = [event for event in events if event["event"] == "audit"]
    assert (audited["action"], audited["outcome"]) == ("job.validate", "ok")


async def test_without_it_or_with_false_it_is_a_submission(gateway: Gateway) -> None:
    for query in ("", "?validate_only=false"):
        response = await gateway.ask("POST", JOBS + query, json=SUBMIT.body)
        assert response.status == 201
    assert not any(each.message.validate_only for each in gateway.coordinator.requests("SubmitJob"))
    assert gateway.coordinator.requests("GetClusterStatus") == []


@pytest.mark.parametrize("features", [[], ["watch_jobs"]])
async def test_a_coordinator_that_does_not_announce_it_is_not_asked(
    gateway: Gateway, features: list[str]
) -> None:
    gateway.coordinator.answer("GetClusterStatus", ClusterStatus(features=features))
    response = await gateway.ask("POST", f"{JOBS}?validate_only=true", json=SUBMIT.body)
    assert response.status == 501
    assert response.error["code"] == "NOT_IMPLEMENTED"
    assert "validate_only" in response.error["message"]
    assert gateway.coordinator.requests("SubmitJob") == []


async def test_whose_features_cannot_be_read_is_not_asked(gateway: Gateway) -> None:
    gateway.coordinator.answer("GetClusterStatus", Failure(StatusCode.RESOURCE_EXHAUSTED))
    response = await gateway.ask("POST", f"{JOBS}?validate_only=true", json=SUBMIT.body)
    assert response.status == 429
    assert gateway.coordinator.requests("SubmitJob") == []


async def test_what_a_submission_is_refused_for_it_is_refused_for(able: Gateway) -> None:
    url = f"{JOBS}?validate_only=true"
    refused = await able.ask("POST", url, json={**(SUBMIT.body or {}), "name": ""})
    assert (refused.status, refused.error["code"]) == (422, "VALIDATION_ERROR")
    able.coordinator.answer("SubmitJob", Failure(StatusCode.FAILED_PRECONDITION, "no node can"))
    refused = await able.ask("POST", url, json=SUBMIT.body)
    assert (refused.status, refused.error["message"]) == (409, "no node can")
    refused = await able.ask(
        "POST", url, json=SUBMIT.body, key=able.keys.by_permission["scaimind:view"]
    )
    assert refused.status == 403


async def test_other_arguments_are_refused(gateway: Gateway) -> None:
    for query in ("validate_only=maybe", "validate=true"):
        response = await gateway.ask("POST", f"{JOBS}?{query}", json=SUBMIT.body)
        assert response.status == 422
    assert gateway.coordinator.requests("SubmitJob") == []


async def test_one_that_submits_all_the_same_breaks_its_contract(able: Gateway) -> None:
    able.coordinator.answer("SubmitJob", SubmitJobResponse(job_id="job-1"))
    response = await able.ask("POST", f"{JOBS}?validate_only=true", json=SUBMIT.body)
    assert (response.status, response.error["code"]) == (500, "COORDINATOR_ERROR")


async def validated(gateway: Gateway, *records: str, preview: int = 2) -> Any:
    gateway.coordinator.answer(
        "ValidateData",
        ValidateDataResponse(
            valid=True,
            validations=[DataValidation(path="p", preview=DataPreview(records=records))],
        ),
    )
    return await gateway.ask(
        "POST",
        f"{PREFIX}/data/validate",
        json={"data_sources": [{"path": "p"}], "preview": preview},
    )


async def test_records_are_shown(gateway: Gateway) -> None:
    response = await validated(gateway, '{"text": "a"}', '{"text": "ä…')
    [validation] = response.json["data"]["validations"]
    assert validation["preview"] == {"records": ['{"text": "a"}', '{"text": "ä…']}
    [arrived] = gateway.coordinator.requests("ValidateData")
    assert arrived.message.preview == 2


async def test_more_than_was_asked_for_breaks_the_contract(gateway: Gateway) -> None:
    for records in (["{}"] * 3, ["x" * 4097]):
        response = await validated(gateway, *records)
        assert (response.status, response.error["code"]) == (500, "COORDINATOR_ERROR")


async def test_five_records_are_the_most(gateway: Gateway) -> None:
    for preview in (-1, 6):
        response = await validated(gateway, preview=preview)
        assert response.status == 422
        assert response.error["details"][0]["field"] == "preview"
