"""Evaluations of models that leave, crash, lie, and write where they should not."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    Evaluation,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import JobStatus
from tests.coordinator.harness import Client, running

#: A model that does something odd when it meets a word, and answers otherwise.
MODEL = """
    import json, os, signal, socket, subprocess, sys, time
    OUTPUT = os.environ["SCAIMIND_OUTPUT_DIR"]

    class Model:
        def score(self, prompt, text):
            if text.startswith("do "):
                exec(text[3:])
            return {answer}

        def generate(self, prompt, max_tokens):
            return "a"

    def load(directory):
        {load}
        return Model()
"""


def put_model(client: Client, folder: str, *, answer: str = "-1.0, 1", load: str = "pass") -> str:
    client.write(f"{folder}/scaimind_model.py", MODEL.format(answer=answer, load=load))
    return f"scaidrive://local/{folder}"


def put_text(client: Client, name: str, *texts: str) -> Benchmark:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    return Benchmark(name="perplexity", dataset=client.write(name, lines))


async def evaluated(client: Client, model: str, *benchmarks: Benchmark) -> Evaluation:
    evaluation = await client.call(
        "SubmitEvaluation", SubmitEvaluationRequest(model_uri=model, benchmarks=benchmarks)
    )
    await client.end(evaluation.evaluation_id)
    found: Evaluation = await client.call(
        "GetEvaluation", GetEvaluationRequest(evaluation_id=evaluation.evaluation_id)
    )
    return found


#: What a model does, and what is told of it.
LEAVES = {
    "sys.exit(0)": "the model's process exited with status 0 when it was asked to score",
    "os._exit(0)": "the model's process exited with status 0 when it was asked to score",
    "exit(0)": "the model's process exited with status 0 when it was asked to score",
    "os.kill(os.getpid(), 9)": "the model's process was ended by signal 9 (Killed)",
    "os.kill(os.getpid(), 11)": "the model's process was ended by signal 11",
    "os.closerange(3, 100); os._exit(0)": "the model's process exited with status 0",
    # What it started holds its connection.
    "os.fork() and os._exit(0); time.sleep(600)": "the model's process exited with status 0",
    "os.write(int(sys.argv[2]), b'nonsense\\n')": "what the model's process says is no answer",
    "os.write(int(sys.argv[2]), b'{\"value\": [1]}\\n')": "process says is no score",
    "os.write(int(sys.argv[2]), b'[' * 100_000 + b'\\n')": "says is no answer",
    "raise RuntimeError('x' * 1_000_000)": "the model failed with RuntimeError: xxx",
}


async def test_one_benchmark_that_ends_the_model_costs_the_others_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        model = put_model(client, "model")
        good = put_text(client, "good.jsonl", "a", "b")
        bad = [put_text(client, f"{at}.jsonl", f"do {code}") for at, code in enumerate(LEAVES)]
        found = await evaluated(client, model, good, *bad, good)
        assert found.status == JobStatus.JOB_STATUS_COMPLETED, found
        first, *ended, last = found.results
        for result in (first, last):
            assert result.scores["loss"] == 1.0
            assert result.num_samples == 2
        for result, (code, problem) in zip(ended, LEAVES.items(), strict=True):
            assert problem in result.error_message, code
            assert not result.scores
            assert len(result.error_message) < 1100


@pytest.mark.parametrize("leave", ["sys.exit(0)", "os._exit(0)", "os.kill(os.getpid(), 9)"])
async def test_a_model_that_leaves_is_not_completed(tmp_path: Path, leave: str) -> None:
    async with running(tmp_path) as (_, client):
        good = put_text(client, "good.jsonl", "a")
        bad = put_text(client, "bad.jsonl", f"do {leave}")
        for model, benchmark in (
            (put_model(client, "loading", load=leave), good),
            (put_model(client, "scoring"), bad),
        ):
            found = await evaluated(client, model, benchmark)
            assert found.status == JobStatus.JOB_STATUS_FAILED, found
            assert "the model's process" in found.error_message
            assert not found.results


async def test_a_model_cannot_say_what_its_scores_are(tmp_path: Path) -> None:
    """It forges results, leaves a process that goes on with it, and tries to end the evaluator."""
    forges = """
        forged = json.dumps([{"scores": {"loss": 0.0}, "num_samples": 9,
                              "error_message": "", "duration_seconds": 0}])
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            while True:
                with open(OUTPUT + "/results.json", "w") as file:
                    file.write(forged)
                time.sleep(0.001)
        try:
            open(f"/proc/{os.getppid()}/mem", "r+b").close()
        except OSError as error:
            print("not opened:", error.strerror)
        else:
            print("opened")
    """.replace("\n        ", "\n")
    async with running(tmp_path) as (_, client):
        model = put_model(client, "model")
        found = await evaluated(client, model, put_text(client, "a.jsonl", f"do {forges}"))
        assert found.results[0].scores["loss"] == 1.0, found
        log = [entry.message for entry in await client.log(found.evaluation_id)]
        assert any(line.startswith("not opened:") for line in log), log
        ends = put_text(client, "b.jsonl", "do os.kill(os.getppid(), 9)")
        found = await evaluated(client, model, ends)
        assert found.status == JobStatus.JOB_STATUS_FAILED
        # A folder of its own in the place of the results.
        takes = put_text(client, "c.jsonl", "do os.makedirs(OUTPUT + '/results.json/x')")
        found = await evaluated(client, model, takes)
        assert found.status == JobStatus.JOB_STATUS_FAILED
        assert "The results cannot be written" in found.error_message


async def test_what_is_no_score_is_told(tmp_path: Path) -> None:
    answers = {
        "float('nan'), 1": "the model returned nan for 1 tokens",
        "float('inf'), 1": "the model returned inf for 1 tokens",
        "float('-inf'), 1": "the model returned -inf, and perplexity is infinite then",
        "-1.0, -1": "the model returned -1.0 for -1 tokens",
        "-1.0, 10 ** 400": "tokens",
        "10 ** 400, 1": "OverflowError",
        "'x', 1": "ValueError",
        "-1.0": "TypeError",
        "-1.0, 0": "there is no text to score",
    }
    async with running(tmp_path) as (_, client):
        good = put_text(client, "good.jsonl", "a")
        empty = Benchmark(name="exact_match", dataset=client.write("empty.jsonl", "\n\n"))
        match = Benchmark(
            name="exact_match",
            dataset=client.write("match.jsonl", '{"prompt": "", "answer": "a"}\n'),
        )
        for number, (answer, problem) in enumerate(answers.items()):
            model = put_model(client, f"model-{number}", answer=answer)
            found = await evaluated(client, model, good, empty, match)
            odd, none, scored = found.results
            assert problem in odd.error_message, answer
            assert "there is no record to score" in none.error_message
            assert scored.scores["exact_match"] == 1.0


async def test_long_errors_of_many_benchmarks_keep_every_score(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        model = put_model(client, "model")
        good = put_text(client, "good.jsonl", "a")
        code = r"do raise RuntimeError('\x01\U0001f600' * 10_000)"
        bad = put_text(client, "bad.jsonl", code)
        found = await evaluated(client, model, *[good, bad] * 50)
        assert found.status == JobStatus.JOB_STATUS_COMPLETED, found
        assert [dict(result.scores).get("loss") for result in found.results] == [1.0, None] * 50


async def test_data_sets_that_no_benchmark_can_read_are_refused(tmp_path: Path) -> None:
    contents: dict[str, tuple[bytes, str]] = {
        "a.jsonl.gz": (b"{}", "it is packed (.gz)"),
        "a.jsonl.zst": (b"{}", "it is packed (.zst)"),
        "a.csv": (b"{}", "it is csv"),
        "a.parquet": (b"{}", "it is parquet"),
        "gz.jsonl": (b"\x1f\x8b\x08", "packed with gzip"),
        "zip": (b"PK\x03\x04", "a ZIP archive"),
        "parquet.data": (b"PAR1", "it is Parquet"),
        "array.json": (b"\xef\xbb\xbf \n[{}]", "one JSON array"),
        "wide.jsonl": ("{}".encode("utf-16"), "UTF-16"),
    }
    async with running(tmp_path) as (_, client):
        model = put_model(client, "model")

        async def submit(dataset: str) -> Any:
            benchmarks = [Benchmark(name="perplexity", dataset=dataset)]
            return await client.call(
                "SubmitEvaluation", SubmitEvaluationRequest(model_uri=model, benchmarks=benchmarks)
            )

        for name, (content, problem) in contents.items():
            url = client.write(name, "")
            (client.drive / "local" / name).write_bytes(content)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await submit(url)
            assert "benchmarks.0.dataset" in str(caught.value.details())
            assert problem in str(caught.value.details())
            assert "convert it" in str(caught.value.details())
        for name in ("lines.json", "lines", "lines.txt"):
            url = client.write(name, '{"text": "a"}\n')
            await client.end((await submit(url)).evaluation_id)


async def test_hostile_data_sets_end_their_benchmark(tmp_path: Path) -> None:
    contents = {
        b'{"text": ' + b"[" * 100_000: "line 1: it is not JSON",
        b'{"text": "a"}\n{"text": ' + b"1" * 5000 + b"}\n": "line 2: it is not JSON",
        b'{"text": "' + b"x" * 70_000_000: "line 1 is longer than",
        b"{\0}\n": "line 1: it is not JSON",
        b"\xff\xfe\n"[1:]: "line 1: it is not JSON",
        b'{"text": "\\ud800"}\n': "",
    }
    async with running(tmp_path) as (_, client):
        model = put_model(client, "model")
        benchmarks = [put_text(client, "good.jsonl", "a")]
        for number, content in enumerate(contents):
            url = client.write(f"{number}.jsonl", "")
            (client.drive / "local" / f"{number}.jsonl").write_bytes(content)
            benchmarks.append(Benchmark(name="perplexity", dataset=url))
        found = await evaluated(client, model, *benchmarks)
        assert found.status == JobStatus.JOB_STATUS_COMPLETED, found
        for result, problem in zip(found.results, ["", *contents.values()], strict=True):
            assert problem in result.error_message
            assert bool(result.scores) == (not problem), result
