"""One mistake, one shape: what gateway and coordinator refuse, through the whole stack."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.functional.stack import PATIENCE, Stack


def refusal(stack: Stack, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The status and the error with which a submission is refused."""
    request = urllib.request.Request(
        f"{stack.url}/v1/modules/scaimind/jobs",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=PATIENCE)
    with caught.value as answer:
        error: dict[str, Any] = json.load(answer)["error"]
        return answer.code, error


def submission(**changes: Any) -> dict[str, Any]:
    return {
        "name": "refused",
        "training_config": {
            "training_type": "CONTINUED_PRETRAIN",
            "base_model": {"model_id": "none"},
            "framework": {"type": "CUSTOM", "custom_script_path": "scaidrive://local/train.py"},
        },
        "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
        "resource_config": {},
        **changes,
    }


def fields_of(error: dict[str, Any]) -> dict[str, str]:
    return {each["field"]: each["message"] for each in error["details"]}


def test_what_gateway_and_coordinator_refuse_has_one_shape(stack: Stack) -> None:
    status, error = refusal(stack, submission(resource_config={"gpu_cnt": 1}, lables={}))
    assert (status, error["code"]) == (422, "VALIDATION_ERROR")
    assert fields_of(error) == {
        "resource_config.gpu_cnt": "Unknown field. Did you mean 'gpu_count'?",
        "lables": "Unknown field. Did you mean 'labels'?",
    }

    sources = [{"path": "/srv/mine/a.jsonl"}, {"path": "scaidrive://other/b.jsonl"}]
    status, error = refusal(
        stack,
        submission(
            data_config={"sources": sources},
            output_config={"path": "https://ann:hunter2-Zebra@example.org/x"},
            scheduling_config={"queue_name": "a b"},
        ),
    )
    assert (status, error["code"]) == (400, "INVALID_ARGUMENT")
    told = fields_of(error)
    assert set(told) == {
        "data_config.sources.0.path",
        "data_config.sources.1.path",
        "output_config.path",
        "scheduling_config.queue_name",
    }
    assert "/srv/mine/a.jsonl is neither" in told["data_config.sources.0.path"]
    assert "hunter2" not in json.dumps(error)

    status, error = refusal(
        stack, submission(data_config={"sources": [{"path": "scaidrive://local/none.jsonl"}]})
    )
    assert (status, error["code"]) == (409, "FAILED_PRECONDITION")
    assert error["message"].startswith("data_config.sources.0.path: scaidrive://local/none.jsonl")
    assert "details" not in error
