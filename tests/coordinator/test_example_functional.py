"""The example is trained, and what it made is evaluated: scores are those of an own computation."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.local import example
from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    BenchmarkResult,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from tests.coordinator.harness import Client, running, status_of

WORDS = ["the cat sat on the mat", "the dog ran to the cat", "a mat on a dog", "the mat ran on"]
HELD_BACK = ["the dog sat on the mat", "a cat ran to the dog", "the rare zebra"]
PROMPTS = [("the cat sat on the ", "mat"), ("the dog ran to the ", "cat"), ("a mat on a ", "zoo")]
CHOICES = [("the dog ran to the ", ["xzq", "cat"], 1), ("the cat sat ", ["on", "qqxj"], "on")]


class Reckoned:
    """The model as its files say, one character at a time, without a line of what is tested."""

    def __init__(self, path: Path) -> None:
        with np.load(path / "model.npz") as model:
            self.alphabet = [str(each) for each in model["alphabet"]]
            self.embedding = model["embedding"].astype(float)
            self.hidden, self.hidden_bias = model["hidden"], model["hidden_bias"]
            self.output, self.output_bias = model["output"], model["output_bias"]
        self.context = len(self.hidden) // self.embedding.shape[1]

    def number(self, character: str) -> int:
        return self.alphabet.index(character if character in self.alphabet else "\n")

    def odds(self, before: str) -> Any:
        """Log-probabilities of the next character."""
        read = ("\n" * self.context + before)[-self.context :]
        inputs = np.concatenate([self.embedding[self.number(each)] for each in read])
        logits = np.tanh(inputs @ self.hidden + self.hidden_bias) @ self.output + self.output_bias
        return logits - math.log(sum(math.exp(logit) for logit in logits))

    def score(self, prompt: str, text: str) -> float:
        return sum(
            float(self.odds(prompt + text[:at])[self.number(character)])
            for at, character in enumerate(text)
        )

    def perplexity(self, texts: list[str]) -> float:
        return math.exp(-sum(self.score("", text) for text in texts) / sum(map(len, texts)))

    def exact_match(self) -> float:
        hits = 0
        for prompt, answer in PROMPTS:
            said = ""
            for _ in range(len(answer) + 1):
                said += self.alphabet[int(np.argmax(self.odds(prompt + said)))]
            hits += said.strip() == answer
        return hits / len(PROMPTS)

    def accuracy(self) -> float:
        hits = 0
        for question, choices, answer in CHOICES:
            means = [self.score(question, choice) / len(choice) for choice in choices]
            best = choices[means.index(max(means))]
            hits += best == (choices[answer] if isinstance(answer, int) else answer)
        return hits / len(CHOICES)


def jsonl(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


async def train(client: Client, **output: Any) -> str:
    """Train the example for a moment; the job's id."""
    example.install(client.drive)
    corpus = client.write("words.jsonl", jsonl(*({"text": words} for words in WORDS * 30)))
    return await client.submit(
        (client.drive / "local/train.py").read_text(),
        training_config={
            "hyperparameters": {
                "steps": "150",
                "hidden": "24",
                "context": "6",
                "embedding": "8",
                "eval_interval": "1000",
            }
        },
        data_config={"sources": [{"path": corpus}], "batch_size": 64},
        output_config={"checkpoint_interval_steps": 10, **output},
    )


async def evaluated(client: Client, **request: Any) -> list[BenchmarkResult]:
    asked = SubmitEvaluationRequest(
        benchmarks=[
            Benchmark(name="perplexity", dataset="scaidrive://local/held.jsonl", num_samples=2),
            Benchmark(name="exact_match", dataset="scaidrive://local/prompts.jsonl"),
            Benchmark(name="multiple_choice", dataset="scaidrive://local/choices.jsonl"),
        ],
        **request,
    )
    evaluation_id = (await client.call("SubmitEvaluation", asked)).evaluation_id
    job = await client.end(evaluation_id)
    assert status_of(job) == "COMPLETED", job
    assert job.labels["type"] == "evaluation"
    answer = await client.call("GetEvaluation", GetEvaluationRequest(evaluation_id=evaluation_id))
    assert [result.error_message for result in answer.results] == ["", "", ""]
    return list(answer.results)


async def test_a_later_checkpoint_scores_better_and_scores_are_what_they_should_be(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await train(client, path="scaidrive://local/models/words")
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job
        assert [each.step for each in job.checkpoints] == list(range(10, 151, 10))
        client.write("held.jsonl", jsonl(*({"text": text} for text in HELD_BACK)))
        client.write(
            "prompts.jsonl", jsonl(*({"prompt": p, "answer": answer} for p, answer in PROMPTS))
        )
        client.write(
            "choices.jsonl",
            jsonl(*({"question": q, "choices": c, "answer": a} for q, c, a in CHOICES)),
        )
        checkpoints = client.drive / "local/jobs" / job_id / "checkpoints"
        models = {
            "": (client.drive / "local/models/words", {"job_id": job_id}),
            "early": (
                checkpoints / "step-000010",
                {"job_id": job_id, "checkpoint_id": "step-000010"},
            ),
            "late": (
                checkpoints / "step-000150",
                {"job_id": job_id, "checkpoint_id": "step-000150"},
            ),
            "by its place": (
                client.drive / "local/models/words",
                {"model_uri": "scaidrive://local/models/words"},
            ),
        }
        found = {}
        for name, (path, request) in models.items():
            surprise, match, choice = await evaluated(client, **request)
            reckoned = Reckoned(path)
            assert surprise.scores["perplexity"] == pytest.approx(
                reckoned.perplexity(HELD_BACK[:2]), rel=1e-4
            ), name
            assert surprise.num_samples == 2
            assert surprise.scores["tokens"] == sum(map(len, HELD_BACK[:2]))
            assert match.scores["exact_match"] == pytest.approx(reckoned.exact_match()), name
            assert match.num_samples == 3
            assert choice.scores["accuracy"] == pytest.approx(reckoned.accuracy()), name
            assert choice.num_samples == 2
            found[name] = surprise.scores["perplexity"], match.scores["exact_match"]
        # Some prompts are answered and some are not: neither could be told by a constant.
        assert found["late"][0] < found["early"][0] / 2
        assert found[""] == found["late"] == found["by its place"]
        assert 0 < found["late"][1] < 1


async def test_a_checkpoint_is_evaluated_while_the_job_trains_on(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.write("held.jsonl", jsonl({"text": "the cat"}))
        client.write("prompts.jsonl", jsonl({"prompt": "the ", "answer": "cat"}))
        client.write(
            "choices.jsonl", jsonl({"question": "the ", "choices": ["cat", "q"], "answer": 0})
        )
        job_id = await train(client)
        job = await client.until(job_id, lambda job: len(job.checkpoints) > 0)
        await evaluated(client, job_id=job_id, checkpoint_id=job.checkpoints[0].checkpoint_id)
        await client.end(job_id)
