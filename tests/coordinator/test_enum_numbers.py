"""Enum numbers that the contract has no name for are refused, at whatever depth they are."""

import re
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from app.coordinator.errors import InvalidArgument
from app.coordinator.execution.job_config import to_dict
from app.coordinator.service.enum_numbers import check_enum_numbers
from generated.mindcoordinator.v1.jobs_pb2 import (
    Framework,
    Job,
    JobStatus,
    ListJobsRequest,
    ListJobsResponse,
    SubmitJobRequest,
    TrainingConfig,
)
from generated.mindcoordinator.v1.watch_pb2 import ListJobLogsRequest
from tests.coordinator.harness import running, submission

UNKNOWN = 99


def _submission(**training: object) -> SubmitJobRequest:
    return SubmitJobRequest(training_config=TrainingConfig(**training))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (
            _submission(framework=Framework(type=UNKNOWN)),  # type: ignore[arg-type]
            "training_config.framework.type: 99 is not a FrameworkType",
        ),
        (_submission(training_type=-1), "training_config.training_type: -1 is not a TrainingType"),
        (
            ListJobsRequest(statuses=[JobStatus.JOB_STATUS_FAILED, UNKNOWN]),  # type: ignore[list-item]
            "statuses.1: 99 is not a JobStatus",
        ),
        (ListJobLogsRequest(min_level=UNKNOWN), "min_level: 99 is not a LogLevel"),  # type: ignore[arg-type]
        (
            ListJobsResponse(jobs=[Job(), Job(status=UNKNOWN)]),  # type: ignore[arg-type]
            "jobs.1.status: 99 is not a JobStatus",
        ),
    ],
)
def test_the_field_of_an_unknown_number_is_named(request_: Message, field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{re.escape(field)}$"):
        check_enum_numbers(request_)


def test_known_numbers_and_unset_fields_are_let_through() -> None:
    for request in (SubmitJobRequest(), submission(), ListJobsRequest(), ListJobLogsRequest()):
        check_enum_numbers(request)


async def test_calls_refuse_them(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.write("train.py", "pass")
        odd = submission(training_config={"training_type": UNKNOWN})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("SubmitJob", odd)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "training_config.training_type" in str(caught.value.details())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("ListJobs", ListJobsRequest(statuses=[UNKNOWN]))  # type: ignore[list-item]
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "statuses.0" in str(caught.value.details())


def test_a_number_that_was_accepted_earlier_is_told_as_a_number() -> None:
    assert to_dict(_submission(training_type=UNKNOWN))["training_config"]["training_type"] == "99"
