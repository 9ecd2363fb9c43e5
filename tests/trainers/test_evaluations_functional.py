"""Models of transformers are evaluated without code of their own, adapters on their base, too."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    Evaluation,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from tests.coordinator import harness
from tests.coordinator.harness import Client, running, status_of

#: An adapter whose weights are random, and not 0 as they begin otherwise.
ADAPTS = """
import sys, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
torch.manual_seed(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, lora_alpha=64)
model = get_peft_model(model, config)
model.peft_config["default"].base_model_name_or_path = sys.argv[2]
model.save_pretrained(sys.argv[3])
"""
BASE = "scaidrive://local/tiny"
TEXTS = [{"text": "It is five."}, {"text": "The value of the object is returned."}]
ASKED = [{"role": "user", "content": "What is two plus three?"}]


def jsonl(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


async def evaluate(client: Client, url: str, *benchmarks: Benchmark) -> Evaluation:
    submitted = await client.call(
        "SubmitEvaluation", SubmitEvaluationRequest(model_uri=url, benchmarks=benchmarks)
    )
    job = await client.end(submitted.evaluation_id)
    assert status_of(job) == "COMPLETED", job
    found: Evaluation = await client.call(
        "GetEvaluation", GetEvaluationRequest(evaluation_id=submitted.evaluation_id)
    )
    return found


@pytest.fixture
def adapter(trainers_python: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with an adapter on the tiny model, which it names by its URL."""
    folder = tmp_path / "adapter"
    subprocess.run(
        [trainers_python, "-P", "-c", ADAPTS, tiny_model, BASE, folder],
        check=True,
        capture_output=True,
        env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
    )
    return folder


async def test_a_model_of_transformers_and_an_adapter_on_it_are_scored(
    trainers_python: Path,
    tiny_model: Path,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Importing torch on a busy machine takes longer than what other tests wait for.
    monkeypatch.setattr(harness, "PATIENCE", 240.0)
    async with running(tmp_path / "data", trainers_python=trainers_python) as (_, client):
        drive = client.drive / client.tenant
        shutil.copytree(tiny_model, drive / "tiny")
        shutil.copytree(adapter, drive / "adapter")
        texts = Benchmark(name="perplexity", dataset=client.write("texts.jsonl", jsonl(*TEXTS)))
        answers = client.write(
            "answers.jsonl", jsonl({"prompt": ASKED, "answer": "x"}, {"prompt": "y", "answer": "z"})
        )
        choices = client.write(
            "choices.jsonl", jsonl({"question": ASKED, "choices": ["a", "b"], "answer": 0})
        )
        found = await evaluate(
            client,
            BASE,
            texts,
            Benchmark(name="exact_match", dataset=answers, parameters={"max_tokens": "4"}),
            Benchmark(name="multiple_choice", dataset=choices),
        )
        assert [each.error_message for each in found.results] == ["", "", ""]
        perplexity, exact, choice = (dict(each.scores) for each in found.results)
        # All of its 2,048 tokens are about as probable.
        assert 1000 < perplexity["perplexity"] < 4000
        assert exact == {"exact_match": 0.0}
        assert choice["accuracy"] in (0.0, 1.0)
        other = await evaluate(client, "scaidrive://local/adapter", texts)
        assert other.results[0].scores["tokens"] == perplexity["tokens"]
        assert abs(other.results[0].scores["loss"] - perplexity["loss"]) > 0.01
