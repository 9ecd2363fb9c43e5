"""What kind of model a folder holds, and what evaluates it."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from app.coordinator.evaluations.evaluator.benchmarks import BENCHMARKS, BadData
from app.coordinator.evaluations.evaluator.harness_task import scores_of
from app.coordinator.evaluations.evaluator.model_host import is_transformers, load_model
from generated.mindcoordinator.v1.evaluations_pb2 import Benchmark, SubmitEvaluationRequest
from tests.coordinator.harness import Client, running

LLAMA = json.dumps({"model_type": "llama"})


@pytest.mark.parametrize(
    ("files", "is_one"),
    [
        ({"config.json": LLAMA, "model.safetensors": ""}, True),
        ({"adapter_config.json": "{}"}, True),
        ({"config.json": LLAMA, "scaimind_model.py": ""}, False),
        ({"config.json": "{}"}, False),
        ({"config.json": "[" * 100_000}, False),
        ({"config.json": "not JSON"}, False),
        ({"model.safetensors": ""}, False),
        ({}, False),
    ],
)
def test_a_model_of_transformers_is_told_by_its_files(files: dict[str, str], is_one: bool) -> None:
    contents = {name: text.encode() for name, text in files.items()}
    assert is_transformers(lambda name: contents.get(name)) is is_one


def environment(path: Path, *packages: str) -> Path:
    """The Python of an environment that has these packages by name alone."""
    for name in packages:
        package = path / "environment/lib/python3.11/site-packages" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    python = path / "environment/bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    return python


async def refusal(client: Client, **request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("SubmitEvaluation", SubmitEvaluationRequest(**request))
    return caught.value.code(), str(caught.value.details())


async def test_without_an_environment_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.write("model/config.json", LLAMA)
        data = client.write("text.jsonl", '{"text": "a"}\n')
        code, reason = await refusal(
            client,
            model_uri="scaidrive://local/model",
            benchmarks=[Benchmark(name="perplexity", dataset=data)],
        )
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "model_uri: it is a model of transformers without a scaimind_model.py" in reason
        assert "scripts/run --with-trainers" in reason


async def test_the_base_of_an_adapter_must_be_there(tmp_path: Path) -> None:
    async with running(tmp_path / "data", trainers_python=environment(tmp_path)) as (_, client):
        base = json.dumps({"base_model_name_or_path": "scaidrive://local/base"})
        client.write("adapter/adapter_config.json", base)
        client.write("broken/adapter_config.json", "{}")
        data = client.write("text.jsonl", '{"text": "a"}\n')
        benchmarks = [Benchmark(name="perplexity", dataset=data)]
        code, reason = await refusal(
            client, model_uri="scaidrive://local/adapter", benchmarks=benchmarks
        )
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "base" in reason
        code, reason = await refusal(
            client, model_uri="scaidrive://local/broken", benchmarks=benchmarks
        )
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "does not name the base of the adapter" in reason


async def test_tasks_of_the_harness_need_it_and_a_model_of_transformers(tmp_path: Path) -> None:
    harness = [Benchmark(name="lm_eval", dataset="arc_easy")]
    async with running(tmp_path / "data", trainers_python=environment(tmp_path)) as (_, client):
        client.write("model/config.json", LLAMA)
        client.write("own/scaimind_model.py", "")
        code, reason = await refusal(
            client, model_uri="scaidrive://local/model", benchmarks=harness
        )
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "pip install lm-eval" in reason
        code, reason = await refusal(client, model_uri="scaidrive://local/own", benchmarks=harness)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "runs on models of transformers alone" in reason
    python = environment(tmp_path / "other", "lm_eval")
    async with running(tmp_path / "data", trainers_python=python) as (_, client):
        bad = [Benchmark(name="lm_eval", dataset="arc easy")]
        code, reason = await refusal(client, model_uri="scaidrive://local/model", benchmarks=bad)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "benchmarks.0.dataset: must be the name of a task of lm-evaluation" in reason
        client.write("none/a.jsonl", "")
        for name in ("a.yaml", "b.yml", "_common.yaml"):
            client.write(f"two/{name}", "")
        for folder, found in (("none", "no"), ("two", "2")):
            bad = [Benchmark(name="lm_eval", dataset=f"scaidrive://local/{folder}")]
            code, reason = await refusal(
                client, model_uri="scaidrive://local/model", benchmarks=bad
            )
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert f"the folder has {found} files *.yaml; it must have one" in reason
        bad = [Benchmark(name="lm_eval", dataset="arc_easy", parameters={"num_fewshot": "200"})]
        code, reason = await refusal(client, model_uri="scaidrive://local/model", benchmarks=bad)
        assert "num_fewshot: must be a number from 0 to 100" in reason


def test_scores_of_the_harness_are_finite_numbers_by_the_names_of_their_metrics() -> None:
    result = {"alias": "x", "acc,none": 0.25, "f1,strict": 1, "acc_stderr,none": "N/A", "n": 4}
    found = {
        "results": {"x": {**result, "perplexity,none": float("nan")}},
        "n-samples": {"x": {"original": 9, "effective": 4}},
    }
    assert scores_of(found, "x") == ({"acc": 0.25, "f1_strict": 1.0}, 4)
    # A folder's task has a name of its own; a group's tasks are named.
    assert scores_of(found, "/some/folder")[0] == {"acc": 0.25, "f1_strict": 1.0}
    group = {"results": {"a": {"acc,none": 1}, "b": {"acc,none": 0}}, "n-samples": {}}
    assert scores_of(group, "both") == ({"a/acc": 1.0, "b/acc": 0.0}, 0)


class Answers:
    """A model that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def score(self, prompt: Any, continuation: str) -> tuple[float, int]:
        self.asked.append(prompt)
        return -1.0, 1

    def generate(self, prompt: Any, max_tokens: int) -> str:
        self.asked.append(prompt)
        return "5"

    def harness(
        self, task: str | Path, limit: int, shots: int | None
    ) -> tuple[dict[str, float], int]:
        return {}, 0


def test_prompts_may_be_messages(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "2 + 3?"}]
    data = tmp_path / "a.jsonl"
    data.write_text(json.dumps({"prompt": messages, "answer": "5"}) + "\n")
    model = Answers()
    assert BENCHMARKS["exact_match"].run(model, data, 0) == ({"exact_match": 1.0}, 1)
    assert model.asked == [messages]
    for wrong in ([], ["text"], [{"role": "user"}], [{"role": 1, "content": "a"}]):
        data.write_text(json.dumps({"prompt": wrong, "answer": "5"}) + "\n")
        with pytest.raises(BadData, match="line 1: 'prompt' is a list, but not of messages"):
            BENCHMARKS["exact_match"].run(model, data, 0)
    with pytest.raises(BadData, match="returned no scores"):
        BENCHMARKS["lm_eval"].run(model, "arc_easy", 0)


def test_a_folder_without_a_model_says_what_could_be_there(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"config\.json of transformers, adapter_config\.json"):
        load_model(tmp_path)
