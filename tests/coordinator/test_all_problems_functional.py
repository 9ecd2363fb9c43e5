"""A refused submission tells all that is wrong with it, each with its field, on the wire."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from app.coordinator.errors import FailedPrecondition, FieldProblem, InvalidArgument, all_problems
from app.coordinator.service.bad_request import bad_request
from app.shortening import CUT
from generated.mindcoordinator.v1.errors_pb2 import BadRequest, StatusDetails
from generated.mindcoordinator.v1.evaluations_pb2 import Benchmark, SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import ListJobsRequest
from tests.coordinator.harness import Client, running, submission


def fields_of(metadata: Any) -> dict[str, str]:
    """The violations in a call's trailers, by field."""
    ((_, value),) = [each for each in metadata if each[0] == "grpc-status-details-bin"]
    (detail,) = StatusDetails.FromString(value).details
    assert detail.type_url == "type.googleapis.com/google.rpc.BadRequest"
    violations = BadRequest.FromString(detail.value).field_violations
    return {each.field: each.description for each in violations}


async def refusal(client: Client, method: str, request: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call(method, request)
    return caught.value


async def test_a_submission_is_told_all_of_it_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        odd = submission(
            training_config={
                "priority": 11,
                "max_retries": -1,
                "environment": {"1": "a", "RANK": "0"},
            },
            resource_config={"gpu_count": -1, "cpu_count": -1},
            data_config={
                "validation_split": 2.0,
                "sources": [{"path": "/etc/passwd", "format": "parket", "sampling": 9}],
            },
            output_config={"export_format": "safetensor", "max_checkpoints": -1},
            scheduling_config={"queue_name": "a b", "max_runtime_seconds": -1},
        )
        odd.name = " "
        error = await refusal(client, "SubmitJob", odd)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    told = fields_of(error.trailing_metadata())
    assert set(told) == {
        "name",
        "training_config.priority",
        "training_config.max_retries",
        "training_config.environment",
        "resource_config.gpu_count",
        "resource_config.cpu_count",
        "data_config.validation_split",
        "data_config.sources.0.path",
        "data_config.sources.0.format",
        "data_config.sources.0.sampling",
        "output_config.export_format",
        "output_config.max_checkpoints",
        "scheduling_config.queue_name",
        "scheduling_config.max_runtime_seconds",
    }
    assert "did you mean 'safetensors'?" in told["output_config.export_format"]
    assert "did you mean 'parquet'?" in told["data_config.sources.0.format"]
    assert str(error.details()).startswith("name: must not be empty; scheduling_config.")


async def test_what_is_not_possible_begins_with_its_field_and_has_no_details(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (_, client):
        asked = submission(data_config={"sources": [{"path": "scaidrive://local/no.jsonl"}]})
        error = await refusal(client, "SubmitJob", asked)

    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    first, second = str(error.details()).split("; ")
    assert first.startswith("training_config.framework.custom_script_path: ")
    assert second.startswith("data_config.sources.0.path: ")
    assert "grpc-status-details-bin" not in dict(error.trailing_metadata() or ())


async def test_other_calls_tell_all_of_it_too(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        listing = ListJobsRequest(page_size=101, order_by="colour")
        told = fields_of((await refusal(client, "ListJobs", listing)).trailing_metadata())
        assert set(told) == {"page_size", "order_by"}

        evaluation = SubmitEvaluationRequest(
            benchmarks=[
                Benchmark(name="perplexit", dataset="scaidrive://local/a.csv"),
                Benchmark(name="perplexity", num_samples=-1, dataset="a"),
            ]
        )
        refused = await refusal(client, "SubmitEvaluation", evaluation)
        told = fields_of(refused.trailing_metadata())
        assert set(told) == {
            "job_id",
            "benchmarks.0.name",
            "benchmarks.0.dataset",
            "benchmarks.1.num_samples",
            "benchmarks.1.dataset",
        }
        assert "did you mean 'perplexity'?" in told["benchmarks.0.name"]


async def test_no_credential_goes_out_in_a_refusal(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        odd = submission(output_config={"path": "https://ann:hunter2-Zebra@example.org/x"})
        error = await refusal(client, "SubmitJob", odd)
    assert (
        "https://ann:***@example.org/x"
        in fields_of(error.trailing_metadata())["output_config.path"]
    )
    assert "hunter2" not in str(error.details())


@pytest.mark.parametrize("letter", ["x", "ü", "語"])
def test_the_trailers_of_any_number_of_problems_fit_into_8_kib(letter: str) -> None:
    problems = [FieldProblem(f"labels.{at}", letter * 5_000) for at in range(1_000)]
    ((_, value),) = bad_request("", problems)
    assert len(value) * 4 / 3 < 5 * 1024
    (detail,) = StatusDetails.FromString(value).details
    *told, last = BadRequest.FromString(detail.value).field_violations
    assert told
    assert all(each.description.endswith(CUT) for each in told)
    assert last.description == f"{CUT} and {1_000 - len(told)} more"


def collect(*raised: Exception) -> None:
    with all_problems() as problems:
        for each in raised:
            with problems.collected():
                raise each
        problems.add("z", "wrong")


def test_what_is_invalid_is_told_before_what_is_not_possible() -> None:
    with pytest.raises(InvalidArgument) as caught:
        collect(FailedPrecondition("a: not now"), InvalidArgument("b", "never"))
    assert str(caught.value) == "b: never; z: wrong"
    assert [each.field for each in caught.value.problems] == ["b", "z"]


def test_other_failures_are_not_collected() -> None:
    with pytest.raises(KeyError):
        collect(InvalidArgument("b", "never"), KeyError())
