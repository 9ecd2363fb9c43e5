"""Models of transformers are evaluated without code of their own, adapters on their base, too."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from app.coordinator.trainers.environment import find_environment, has_package
from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    Evaluation,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from tests.coordinator import harness
from tests.coordinator.harness import Client, running, status_of

#: An adapter on the base and one on that, whose weights are random, and not 0 as they begin
#: otherwise. It prints the loss of texts that both of them together have.
ADAPTS = """
import json, sys, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
base, folder, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
torch.manual_seed(1)
model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
for name, on in (("inner", "tiny"), ("outer", "inner")):
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, lora_alpha=64)
    model = get_peft_model(model, config)
    model.peft_config["default"].base_model_name_or_path = f"scaidrive://local/{on}"
    model.save_pretrained(f"{folder}/{name}")
    model = model.merge_and_unload()
total = count = 0
for text in texts:
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer.encode(text)]])
    total += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
    count += ids.shape[1] - 1
print(total / count)
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
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch on a busy machine takes longer than what other tests wait for."""
    monkeypatch.setattr(harness, "PATIENCE", 240.0)


def make_adapters(python: Path, base: Path, folder: Path) -> float:
    """Make `inner` and `outer` in a folder; return the loss of TEXTS with both."""
    made = subprocess.run(
        [python, "-P", "-c", ADAPTS, base, folder, json.dumps([each["text"] for each in TEXTS])],
        check=True,
        stdout=subprocess.PIPE,
        env={
            **{"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
            "TMPDIR": str(folder),
        },
    )
    return float(made.stdout.split()[-1])


@pytest.mark.usefixtures("patient")
async def test_a_model_of_transformers_and_adapters_on_it_are_scored(
    trainers_python: Path, tiny_model: Path, tmp_path: Path
) -> None:
    async with running(tmp_path / "data", trainers_python=trainers_python) as (_, client):
        drive = client.drive / client.tenant
        shutil.copytree(tiny_model, drive / "tiny")
        loss = make_adapters(trainers_python, tiny_model, drive)
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
        adapted = await evaluate(client, "scaidrive://local/outer", texts)
        assert adapted.results[0].scores["tokens"] == perplexity["tokens"]
        assert adapted.results[0].scores["loss"] == pytest.approx(loss, rel=1e-3)
        assert abs(loss - perplexity["loss"]) > 0.01
        # One that leads back to itself has no end.
        config = drive / "inner/adapter_config.json"
        named = json.loads(config.read_text())
        config.write_text(
            json.dumps({**named, "base_model_name_or_path": "scaidrive://local/outer"})
        )
        with pytest.raises(grpc.aio.AioRpcError, match="the adapter scaidrive://local/outer is on"):
            await evaluate(client, "scaidrive://local/outer", texts)


#: A task as lm-evaluation-harness has it, with its data beside it.
TASK = """
task: sums
dataset_path: json
dataset_kwargs:
  data_files:
    test: sums.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
"""
SUMS = [
    {"question": f"{at} + 1 =", "choices": [f" {at + 1}", f" {at}"], "answer": 0} for at in range(8)
]


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
async def test_lm_evaluation_harness_runs_a_task_of_the_drive_and_needs_a_hub_for_its_own(
    trainers_python: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_package(find_environment(trainers_python), "lm_eval"):
        pytest.skip("the environment for training has no lm-evaluation-harness")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    async with running(tmp_path / "data", trainers_python=trainers_python) as (_, client):
        shutil.copytree(tiny_model, client.drive / client.tenant / "tiny")
        client.write("task/sums.yaml", TASK)
        client.write("task/sums.jsonl", jsonl(*SUMS))
        task = Benchmark(name="lm_eval", dataset="scaidrive://local/task")
        few = Benchmark(name="lm_eval", dataset="scaidrive://local/task", num_samples=3)
        found = await evaluate(client, BASE, task, few)
        assert [each.error_message for each in found.results] == ["", ""]
        assert [each.num_samples for each in found.results] == [8, 3]
        assert set(found.results[0].scores) == {"acc", "acc_stderr"}
        assert found.results[0].scores["acc"] in [at / 8 for at in range(9)]

        named = Benchmark(name="lm_eval", dataset="arc_easy")
        submitted = await client.call(
            "SubmitEvaluation", SubmitEvaluationRequest(model_uri=BASE, benchmarks=[named])
        )
        job = await client.end(submitted.evaluation_id)
        assert status_of(job) == "FAILED"
        assert "the data of the task arc_easy cannot be fetched: HF_HUB_OFFLINE is set" in (
            job.error_message
        )
