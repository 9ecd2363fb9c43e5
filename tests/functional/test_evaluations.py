"""Evaluations through the gateway: the example is trained, and its checkpoints are compared."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.functional.stack import PATIENCE, Stack


def post(stack: Stack, path: str, body: dict[str, Any]) -> Any:
    """POST below the API's root with the key; the `data` of the answer."""
    request = urllib.request.Request(
        f"{stack.url}/v1/modules/scaimind{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["data"]


def refusal(stack: Stack, body: dict[str, Any]) -> tuple[int, str]:
    """The status and the message with which an evaluation is refused."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(stack, "/evaluations", body)
    with caught.value as answer:
        return answer.code, str(json.load(answer)["error"]["message"])


def write_held_back(stack: Stack) -> str:
    """A data set of sentences for the example's model; its URL."""
    path = stack.data_dir / "drive" / "local" / "held-back.jsonl"
    sentences = ["The value of the expression is an object.", "A class is defined by a statement."]
    path.write_text("".join(json.dumps({"text": sentence}) + "\n" for sentence in sentences))
    return "scaidrive://local/held-back.jsonl"


def test_checkpoints_of_a_trained_model_are_compared(stack: Stack) -> None:
    dataset = write_held_back(stack)
    body = {
        "name": "to be evaluated",
        "training_config": {
            "training_type": "CONTINUED_PRETRAIN",
            "base_model": {"model_id": "none"},
            "framework": {"type": "CUSTOM", "custom_script_path": "scaidrive://local/train.py"},
            "hyperparameters": {"steps": "200", "eval_interval": "1000"},
        },
        "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
        "resource_config": {},
        "output_config": {"checkpoint_interval_steps": 20},
    }
    job_id = post(stack, "/jobs", body)["job_id"]
    job = stack.await_status(job_id, "COMPLETED", "FAILED")
    assert job["status"] == "COMPLETED", stack.log(job_id)
    assert job["checkpoints"][0]["checkpoint_id"] == "step-000020"

    benchmarks = [
        {"name": "perplexity", "dataset": dataset},
        {"name": "perplexity", "dataset": dataset, "num_samples": 1},
    ]
    found = []
    for checkpoint_id in ("step-000020", ""):
        asked = {"job_id": job_id, "checkpoint_id": checkpoint_id, "benchmarks": benchmarks}
        evaluation = post(stack, "/evaluations", asked)
        assert evaluation["results"] == []
        stack.await_status(evaluation["evaluation_id"], "COMPLETED", "FAILED")
        evaluation = stack.get(f"/evaluations/{evaluation['evaluation_id']}")
        assert evaluation["status"] == "COMPLETED", evaluation
        whole, first = evaluation["results"]
        assert (whole["num_samples"], first["num_samples"]) == (2, 1)
        assert whole["scores"]["tokens"] > first["scores"]["tokens"]
        found.append(whole["scores"]["perplexity"])
    early, late = found
    assert 1 < late < early

    listed = stack.get("/evaluations")["jobs"]
    assert {each["labels"]["job_id"] for each in listed} >= {job_id}
    assert all(each["labels"]["type"] == "evaluation" for each in listed)


def test_what_cannot_be_evaluated_is_refused_with_the_reason(stack: Stack) -> None:
    dataset = write_held_back(stack)
    job_id = stack.submit(steps="1000000")
    try:
        status, message = refusal(
            stack, {"job_id": job_id, "benchmarks": [{"name": "perplexity", "dataset": dataset}]}
        )
        assert status == 409
        assert "only a COMPLETED job has a model" in message
        status, message = refusal(
            stack, {"job_id": job_id, "benchmarks": [{"name": "mmlu", "dataset": dataset}]}
        )
        assert status == 400
        assert "exact_match, lm_eval, multiple_choice, perplexity" in message
    finally:
        # The tests that come after it have their jobs on the same machine.
        post(stack, f"/jobs/{job_id}/cancel", {})
        stack.await_status(job_id, "CANCELLED")
