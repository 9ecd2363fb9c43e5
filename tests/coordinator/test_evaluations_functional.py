"""Evaluations really score models on data."""

import json
import math
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from app.coordinator.evaluate_model import CharacterModel
from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import ListJobsRequest
from tests.coordinator.harness import Client, running, status_of

#: Leaves a model that knows one thing: `b` follows `a` three times out of four, else `a`.
TRAINS = '''
import os
with open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/scaimind_model.py", "w") as file:
    file.write("""
import math

class Model:
    def score(self, prompt, continuation):
        odds = {"a": 0.25, "b": 0.75}
        return sum(math.log(odds[c]) for c in continuation), len(continuation)

    def generate(self, prompt, max_tokens):
        return ("b" * max_tokens)

def load(directory):
    return Model()
""")
'''


def jsonl(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


async def trained(client: Client) -> str:
    job_id = await client.submit(TRAINS)
    assert status_of(await client.end(job_id)) == "COMPLETED"
    return job_id


async def test_every_benchmark_scores(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await trained(client)
        text = client.write("text.jsonl", jsonl({"text": "ab"}, {"text": "bb"}, {"text": "a"}))
        answers = client.write(
            "answers.jsonl",
            jsonl({"prompt": "a", "answer": "b "}, {"prompt": "a", "answer": "a"}),
        )
        choices = client.write(
            "choices.jsonl",
            jsonl(
                {"question": "q", "choices": ["a", "b"], "answer": 1},
                {"question": "q", "choices": ["b", "a"], "answer": "b"},
                {"question": "q", "choices": ["b", "a"], "answer": 1},
            ),
        )
        broken = client.write("broken.jsonl", '{"text": "a"}\n{"text": \n')
        request = SubmitEvaluationRequest(
            job_id=job_id,
            benchmarks=[
                Benchmark(name="perplexity", dataset=text, num_samples=2),
                Benchmark(name="exact_match", dataset=answers, parameters={"max_tokens": "1"}),
                Benchmark(name="multiple_choice", dataset=choices),
                Benchmark(name="perplexity", dataset=broken),
            ],
        )
        evaluation = await client.call("SubmitEvaluation", request)
        assert evaluation.job_id == job_id
        assert not evaluation.results
        job = await client.end(evaluation.evaluation_id)
        assert status_of(job) == "COMPLETED", job
        evaluation = await client.call(
            "GetEvaluation", GetEvaluationRequest(evaluation_id=evaluation.evaluation_id)
        )
        first, second, third, fourth = evaluation.results
        loss = -(math.log(0.25) + 3 * math.log(0.75)) / 4
        assert first.scores["perplexity"] == pytest.approx(math.exp(loss))
        assert first.num_samples == 2
        assert dict(second.scores) == {"exact_match": 0.5}
        assert third.scores["accuracy"] == pytest.approx(2 / 3)
        assert third.num_samples == 3
        assert (dict(fourth.scores), fourth.num_samples) == ({}, 0)
        assert "line 2" in fourth.error_message
        assert str(tmp_path) not in fourth.error_message
        listed = await client.call("ListJobs", ListJobsRequest(label_filter={"type": "evaluation"}))
        assert [job.job_id for job in listed.jobs] == [evaluation.evaluation_id]


async def test_what_cannot_be_evaluated_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await trained(client)
        data = client.write("text.jsonl", jsonl({"text": "ab"}))

        async def refusal(**changes: Any) -> tuple[grpc.StatusCode, str]:
            asked: dict[str, Any] = {
                "job_id": job_id,
                "benchmarks": [Benchmark(name="perplexity", dataset=data)],
                **changes,
            }
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call("SubmitEvaluation", SubmitEvaluationRequest(**asked))
            return caught.value.code(), str(caught.value.details())

        code, text = await refusal(benchmarks=[Benchmark(name="mmlu", dataset=data)])
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "exact_match, multiple_choice, perplexity" in text
        assert (await refusal(benchmarks=[]))[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert (await refusal(job_id="none"))[0] is grpc.StatusCode.NOT_FOUND
        assert (await refusal(checkpoint_id="x"))[0] is grpc.StatusCode.FAILED_PRECONDITION
        code, _ = await refusal(model_uri="scaidrive://other/model")
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        other = Client(client.stub, client.drive, tenant="other")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await other.call("GetEvaluation", GetEvaluationRequest(evaluation_id=job_id))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_character_model_is_scored_by_its_weights(tmp_path: Path) -> None:
    """Without weights but a bias, each character's odds are those of the bias."""
    odds = np.array([0.5, 0.125, 0.375])
    np.savez(
        tmp_path / "model.npz",
        alphabet=np.array(["\n", "a", "b"]),
        embedding=np.zeros((3, 2)),
        hidden=np.zeros((8, 5)),
        hidden_bias=np.zeros(5),
        output=np.zeros((5, 3)),
        output_bias=np.log(odds),
    )
    model = CharacterModel(tmp_path / "model.npz")
    score, tokens = model.score("whatever", "ab\n?")
    assert tokens == 4
    assert score == pytest.approx(math.log(0.125 * 0.375 * 0.5 * 0.5))
    assert model.generate("x", 3) == "\n\n\n"
