"""Evaluations really score models on data."""

import json
import math
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from app.coordinator.evaluations.evaluator.model_host import CharacterModel
from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    Evaluation,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, JobStatus, ListJobsRequest
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
                # Less probable as a whole, more per token.
                {"question": "q", "choices": ["a", "bbbbbb"], "answer": 1},
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
        assert third.scores["accuracy"] == 3 / 4
        assert third.num_samples == 4
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
        assert "exact_match, lm_eval, multiple_choice, perplexity" in text
        large = Benchmark(name="perplexity", dataset=data, parameters={"field": "x" * 300_000})
        code, text = await refusal(benchmarks=[large])
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "the limit is 262144" in text
        assert (await refusal(benchmarks=[]))[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert (await refusal(job_id="none"))[0] is grpc.StatusCode.NOT_FOUND
        assert (await refusal(checkpoint_id="x"))[0] is grpc.StatusCode.FAILED_PRECONDITION
        code, _ = await refusal(model_uri="scaidrive://other/model")
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        other = Client(client.stub, client.drive, tenant="other")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await other.call("GetEvaluation", GetEvaluationRequest(evaluation_id=job_id))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_parameters_are_checked_before_anything_runs(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await trained(client)
        data = client.write("text.jsonl", jsonl({"text": "ab"}))
        for name, parameters, problem in (
            ("exact_match", {"temperature": "1"}, "'temperature' is not known; there are: max_tok"),
            ("exact_match", {"max_tokens": "0"}, "max_tokens: must be a number from 1 to 65536"),
            ("exact_match", {"max_tokens": "many"}, "max_tokens: must be a number"),
            ("multiple_choice", {"field": "text"}, "'field' is not known; there are: none"),
        ):
            benchmark = Benchmark(name=name, dataset=data, parameters=parameters)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call(
                    "SubmitEvaluation",
                    SubmitEvaluationRequest(job_id=job_id, benchmarks=[benchmark]),
                )
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert f"benchmarks.0.parameters: {problem}" in str(caught.value.details())


async def test_a_job_without_a_model_cannot_be_evaluated(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        data = client.write("text.jsonl", jsonl({"text": "ab"}))
        benchmarks = [Benchmark(name="perplexity", dataset=data)]

        async def refusal(**request: Any) -> tuple[grpc.StatusCode, str]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call(
                    "SubmitEvaluation", SubmitEvaluationRequest(benchmarks=benchmarks, **request)
                )
            return caught.value.code(), str(caught.value.details())

        failed = await client.submit("raise SystemExit(1)")
        await client.end(failed)
        code, text = await refusal(job_id=failed)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "the job is FAILED, and only a COMPLETED job has a model" in text
        waiting = await client.submit("import time; time.sleep(600)")
        await client.until_status(waiting, "TRAINING")
        code, text = await refusal(job_id=waiting)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "TRAINING" in text
        await client.call("CancelJob", CancelJobRequest(job_id=waiting))
        for request, problem in (
            ({}, "job_id: either job_id or model_uri"),
            ({"model_uri": "scaidrive://local/x", "checkpoint_id": "c"}, "checkpoint_id: requires"),
        ):
            code, text = await refusal(**request)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert problem in text
        done = await trained(client)
        evaluation = await client.call(
            "SubmitEvaluation", SubmitEvaluationRequest(job_id=done, benchmarks=benchmarks)
        )
        code, text = await refusal(job_id=evaluation.evaluation_id)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "not an evaluation" in text
        await client.end(evaluation.evaluation_id)


def model_of(client: Client, folder: str, code: str, **beside: str) -> str:
    """Put a model's directory into the drive; its URL."""
    for name, text in {"scaimind_model": code, **beside}.items():
        client.write(f"{folder}/{name}.py", text)
    return f"scaidrive://local/{folder}"


async def outcome(client: Client, model: str, *benchmarks: Benchmark) -> Evaluation:
    evaluation = await client.call(
        "SubmitEvaluation", SubmitEvaluationRequest(model_uri=model, benchmarks=benchmarks)
    )
    await client.end(evaluation.evaluation_id)
    answer: Evaluation = await client.call(
        "GetEvaluation", GetEvaluationRequest(evaluation_id=evaluation.evaluation_id)
    )
    return answer


async def test_a_failing_model_tells_which_benchmark_failed_and_why(tmp_path: Path) -> None:
    code = """
        from beside import ODDS

        class Model:
            def score(self, prompt, continuation):
                return len(continuation) * ODDS, len(continuation)

            def generate(self, prompt, max_tokens):
                raise RuntimeError("out of memory")

        def load(directory):
            return Model()
    """
    async with running(tmp_path) as (_, client):
        text = client.write("text.jsonl", jsonl({"words": "ab"}))
        answers = client.write("answers.jsonl", jsonl({"prompt": "a", "answer": "b"}))
        surprise = Benchmark(name="perplexity", dataset=text, parameters={"field": "words"})
        match = Benchmark(name="exact_match", dataset=answers)
        model = model_of(client, "model", code, beside="ODDS = -1.0")
        mixed = await outcome(client, model, match, surprise)
        assert mixed.status == JobStatus.JOB_STATUS_COMPLETED
        first, second = mixed.results
        assert first.name == "exact_match"
        assert (
            first.error_message == f"{answers}: the model failed with RuntimeError: out of memory"
        )
        assert second.scores["perplexity"] == pytest.approx(math.e)
        log = [entry.message for entry in await client.log(mixed.evaluation_id)]
        assert any("in generate" in line for line in log)

        failed = await outcome(client, model, match)
        assert failed.status == JobStatus.JOB_STATUS_FAILED
        assert f"exact_match: {answers}: the model failed" in failed.error_message
        assert not failed.results

        empty = await outcome(client, model_of(client, "empty", "x = 1"), match)
        assert empty.status == JobStatus.JOB_STATUS_FAILED
        assert "scaimind_model.py has no function load(directory)" in empty.error_message


async def test_results_are_written_behind_everything_that_the_model_does(tmp_path: Path) -> None:
    code = """
        import atexit, os
        def spoil():
            results = os.environ["SCAIMIND_OUTPUT_DIR"] + "/results.json"
            os.symlink("/etc/passwd", results)
        atexit.register(spoil)

        class Model:
            def score(self, prompt, continuation):
                return -1.0, 1

        def load(directory):
            return Model()
    """
    async with running(tmp_path) as (_, client):
        text = client.write("text.jsonl", jsonl({"text": "ab"}))
        spoilt = await outcome(
            client, model_of(client, "model", code), Benchmark(name="perplexity", dataset=text)
        )
        assert spoilt.results[0].scores["loss"] == 1.0
        assert not spoilt.error_message


async def test_an_evaluation_is_cancelled_like_any_job(tmp_path: Path) -> None:
    code = """
        import time
        def load(directory):
            print("loading")
            time.sleep(600)
    """
    async with running(tmp_path) as (_, client):
        text = client.write("text.jsonl", jsonl({"text": "ab"}))
        evaluation = await client.call(
            "SubmitEvaluation",
            SubmitEvaluationRequest(
                model_uri=model_of(client, "model", code),
                benchmarks=[Benchmark(name="perplexity", dataset=text)],
            ),
        )
        assert evaluation.model_uri == "scaidrive://local/model"
        asked = GetEvaluationRequest(evaluation_id=evaluation.evaluation_id)
        await client.until_line(evaluation.evaluation_id, "loading")
        running_now = await client.call("GetEvaluation", asked)
        assert running_now.status == JobStatus.JOB_STATUS_EVALUATING
        await client.call("CancelJob", CancelJobRequest(job_id=evaluation.evaluation_id))
        await client.end(evaluation.evaluation_id)
        ended = await client.call("GetEvaluation", asked)
        assert ended.status == JobStatus.JOB_STATUS_CANCELLED
        assert not ended.results


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
