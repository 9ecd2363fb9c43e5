"""Data checks, the cache, models and export formats over the wire."""

import asyncio
import importlib.util
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from safetensors import safe_open

from generated.mindcoordinator.v1.data_pb2 import (
    DataCache,
    GetDataCacheRequest,
    ValidateDataRequest,
    ValidateDataResponse,
)
from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import DataConfig, DataSource, GetJobRequest
from tests.coordinator.harness import PATIENCE, Client, client_of, running, status_of

#: Enough to keep a check busy for about a second.
RECORDS = 1_000_000

READS = """
    import json, os
    config = json.load(open(os.environ["SCAIMIND_JOB_CONFIG"]))
    for source in config["data_config"]["sources"]:
        print(open(source["local_path"]).read(), source["local_path"])
    import pathlib
    pathlib.Path(os.environ["SCAIMIND_OUTPUT_DIR"], "model.txt").write_text("a model")
"""
WAITS_WITH_DATA = """
    import json, os, time
    json.load(open(os.environ["SCAIMIND_JOB_CONFIG"]))
    print("ready")
    time.sleep(600)
"""
MAKES_MODEL = """
    import os, numpy as np
    folder = os.environ["SCAIMIND_OUTPUT_DIR"]
    weights = np.arange(6.0).reshape(2, 3)
    np.savez(folder + "/model.npz", weights=weights, alphabet=np.array(["a", "b"]))
    open(folder + "/report.json", "w").write("{}")
"""


def sources(*urls: str) -> DataConfig:
    return DataConfig(sources=[DataSource(path=url) for url in urls])


async def cache(client: Client, node_id: str = "") -> DataCache:
    answer: DataCache = await client.call("GetDataCache", GetDataCacheRequest(node_id=node_id))
    return answer


async def refused(client: Client, script: str, **changes: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.submit(script, **changes)
    return caught.value.code(), caught.value.details() or ""


async def test_validation(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        good = client.write("a.jsonl", '{"text": "a"}\n')
        request = ValidateDataRequest(
            data_sources=[DataSource(path=good), DataSource(path="scaidrive://other/x.jsonl")]
        )
        answer = await client.call("ValidateData", request)
        assert not answer.valid
        first, second = answer.validations
        assert (first.path, first.record_count, first.format) == (good, 1, "jsonl")
        assert not second.accessible
        assert "your tenant's folder" in second.error_message
        assert (
            await client.call(
                "ValidateData", ValidateDataRequest(data_sources=[DataSource(path=good)])
            )
        ).valid


async def test_other_calls_stay_quick_while_data_are_checked(tmp_path: Path) -> None:
    """Parsing takes seconds; calls in the meantime are answered before it ends."""
    async with running(tmp_path) as (_, client):
        url = client.write("a.csv", "")
        (client.drive / "local" / "a.csv").write_text("a,b\n" + '"x, y",2\n' * RECORDS)
        request = ValidateDataRequest(data_sources=[DataSource(path=url)])
        check = asyncio.create_task(client.call("ValidateData", request))
        answered = 0
        while not check.done():
            with pytest.raises(grpc.aio.AioRpcError):
                await client.call("GetJob", GetJobRequest(job_id="none"))
            answered += 1
        answer: ValidateDataResponse = await check
        assert answer.validations[0].record_count == RECORDS
        assert answered > 5


async def test_a_check_that_nobody_waits_for_ends(tmp_path: Path) -> None:
    async with running(tmp_path, validation_workers=1) as (_, client):
        url = client.write("big.csv", "")
        (client.drive / "local" / "big.csv").write_text("a\n" + "1\n" * 30_000_000)
        call = client.stub.ValidateData(
            ValidateDataRequest(data_sources=[DataSource(path=url)]),
            metadata=client.metadata,
            timeout=1,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # There is one worker: it is free again.
        small = client.write("a.csv", "a\n1\n")
        request = ValidateDataRequest(data_sources=[DataSource(path=small)])
        assert (await client.call("ValidateData", request)).valid


async def test_a_check_that_needs_too_much_memory_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, validation_memory=64 * 1024**2) as (_, client):
        url = client.write("a.json", "")
        deep = b"[" + b"[1]," * 2_000_000 + b"1]"
        (client.drive / "local" / "a.json").write_bytes(b'[{"text": ' + deep + b"}]")
        answer = await client.call(
            "ValidateData", ValidateDataRequest(data_sources=[DataSource(path=url)])
        )
        assert "more memory than a data check may use" in answer.validations[0].error_message


async def test_a_format_whose_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name)
    )
    async with running(tmp_path) as (_, client):
        request = ValidateDataRequest(data_sources=[DataSource(path="scaidrive://local/a.parquet")])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("ValidateData", request)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "pip install pyarrow" in (caught.value.details() or "")


async def test_jobs_read_from_the_cache_and_hold_it_while_they_run(tmp_path: Path) -> None:
    async with (
        running(tmp_path, cache_bytes=10_000) as (coordinator, client),
        client_of(coordinator.port, client.drive, "other") as other,
    ):
        url = client.write("a.jsonl", '{"a": 1}\n')
        job_id = await client.submit(READS, data_config=sources(url))
        assert status_of(await client.end(job_id)) == "COMPLETED"
        log = [entry.message for entry in await client.log(job_id)]
        assert any('{"a": 1}' in line for line in log)
        assert any(str(tmp_path / "cache") in line for line in log)
        held = await client.submit(WAITS_WITH_DATA, data_config=sources(url))
        await client.until_line(held, "ready")
        answer = await cache(client)
        (data_set,) = answer.datasets
        assert (data_set.path, data_set.size_bytes, data_set.reference_count) == (url, 9, 1)
        assert (answer.total_cache_size_bytes, answer.used_cache_size_bytes) == (10_000, 9)
        assert data_set.cached_at.seconds <= data_set.last_accessed.seconds
        assert (await cache(client, "local")).datasets == answer.datasets
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cache(client, "nowhere")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        # Another tenant sees neither the data set nor that there is something.
        theirs = await cache(other)
        assert (len(theirs.datasets), theirs.used_cache_size_bytes) == (0, 0)
        assert theirs.total_cache_size_bytes == 10_000
    # The job went back to the queue, and holds nothing; its data are still there.
    async with running(tmp_path, cache_bytes=10_000) as (_, client):
        await client.until_status(held, "TRAINING")
        assert (await cache(client)).datasets[0].reference_count == 1
        await client.call("CancelJob", GetJobRequest(job_id=held))
        await client.end(held)
        async with asyncio.timeout(PATIENCE):
            while (await cache(client)).datasets[0].reference_count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_data_that_do_not_fit_are_read_where_they_are(tmp_path: Path) -> None:
    async with running(tmp_path, cache_bytes=0) as (_, client):
        job_id = await client.submit(READS, data_config=sources(client.write("a.jsonl", "here")))
        assert status_of(await client.end(job_id)) == "COMPLETED"
        log = [entry.message for entry in await client.log(job_id)]
        assert any(line.startswith("here ") and str(client.drive) in line for line in log)
        assert not (await cache(client)).datasets


async def test_export_formats(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        output = client.drive / "local" / "out"
        for export_format in ("", "npz", "safetensors", "tar.gz"):
            job_id = await client.submit(
                MAKES_MODEL,
                output_config={
                    "path": f"scaidrive://local/out/as-{export_format}",
                    "export_format": export_format,
                },
            )
            job = await client.end(job_id)
            assert status_of(job) == "COMPLETED", job
        with np.load(output / "as-npz" / "model.npz") as arrays:
            assert arrays["weights"].tolist() == [[0, 1, 2], [3, 4, 5]]
        with safe_open(output / "as-safetensors" / "model.safetensors", "numpy") as tensors:
            assert tensors.get_tensor("weights").tolist() == [[0, 1, 2], [3, 4, 5]]
            assert json.loads(tensors.metadata()["alphabet"]) == ["a", "b"]
        assert sorted(path.name for path in (output / "as-safetensors").iterdir()) == [
            "model.safetensors",
            "report.json",
        ]
        packed = io.BytesIO((output / "as-tar.gz" / "model.tar.gz").read_bytes())
        with tarfile.open(fileobj=packed) as archive:
            assert sorted(archive.getnames()) == ["model.npz", "report.json"]
        code, text = await refused(client, READS, output_config={"export_format": "onnx"})
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "there are: npz, safetensors, tar.gz" in text
        nothing = await client.submit(
            "print('no model')", output_config={"export_format": "safetensors"}
        )
        job = await client.end(nothing)
        assert status_of(job) == "FAILED"
        assert "neither a .npz nor a .safetensors" in job.error_message


async def test_an_exported_model_is_evaluated_like_the_one_that_was_trained(tmp_path: Path) -> None:
    makes = """
        import os, numpy as np
        rng = np.random.default_rng(1)
        sizes = {"embedding": (2, 3), "hidden": (6, 4), "output": (4, 2)}
        np.savez(
            os.environ["SCAIMIND_OUTPUT_DIR"] + "/model.npz",
            alphabet=np.array(["a", "\\n"]), hidden_bias=np.zeros(4), output_bias=np.zeros(2),
            **{name: rng.standard_normal(shape) for name, shape in sizes.items()},
        )
    """
    async with running(tmp_path) as (_, client):
        data = client.write("text.jsonl", '{"text": "aa\\na"}\n')
        scores = []
        for export_format in ("", "safetensors"):
            job_id = await client.submit(makes, output_config={"export_format": export_format})
            assert status_of(await client.end(job_id)) == "COMPLETED"
            # What was made on the way is gone.
            assert not (tmp_path / "jobs" / job_id / "export").exists()
            request = SubmitEvaluationRequest(
                job_id=job_id, benchmarks=[Benchmark(name="perplexity", dataset=data)]
            )
            evaluation_id = (await client.call("SubmitEvaluation", request)).evaluation_id
            assert status_of(await client.end(evaluation_id)) == "COMPLETED"
            done = await client.call(
                "GetEvaluation", GetEvaluationRequest(evaluation_id=evaluation_id)
            )
            scores.append(dict(done.results[0].scores))
        assert scores[0] == scores[1]
        assert scores[0]["perplexity"] > 1


async def test_a_model_is_registered_and_used(tmp_path: Path) -> None:
    async with running(tmp_path) as (coordinator, client):
        registered = {"register_model": True, "model_name": "small"}
        for _ in range(2):
            job_id = await client.submit(READS, output_config=registered)
            assert status_of(await client.end(job_id)) == "COMPLETED"
        lines = [entry.message for entry in await client.log(job_id)]
        assert "The model is registered as scaiatlas://local/small@2." in lines
        manifest = json.loads(
            (tmp_path / "atlas" / "local" / "small" / "2" / "manifest.json").read_bytes()
        )
        assert (manifest["job_id"], manifest["version"]) == (job_id, 2)
        assert [file["path"] for file in manifest["files"]] == ["model.txt"]

        uses = """
            import json, os
            config = json.load(open(os.environ["SCAIMIND_JOB_CONFIG"]))
            base = config["training_config"]["base_model"]
            print(base["model_id"], open(base["local_path"] + "/model.txt").read())
        """
        for model, revision, meant in (
            ("scaiatlas://local/small", "", "@2"),
            ("scaiatlas://local/small", "1", "@1"),
            ("scaiatlas://local/small@1", "", "@1"),
        ):
            job_id = await client.submit(
                uses, training_config={"base_model": {"model_id": model, "revision": revision}}
            )
            assert status_of(await client.end(job_id)) == "COMPLETED"
            assert any(
                entry.message == f"scaiatlas://local/small{meant} a model"
                for entry in await client.log(job_id)
            )
        for model in ("scaiatlas://local/none", "scaiatlas://local/small@9"):
            code, text = await refused(
                client, uses, training_config={"base_model": {"model_id": model}}
            )
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "does not exist" in text
        async with client_of(coordinator.port, client.drive, "other") as other:
            code, text = await refused(
                other,
                uses,
                training_config={"base_model": {"model_id": "scaiatlas://local/small"}},
            )
            assert code is grpc.StatusCode.INVALID_ARGUMENT
        code, text = await refused(client, READS, output_config={"register_model": True})
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "model_name" in text


async def test_a_registered_model_is_evaluated(tmp_path: Path) -> None:
    makes = """
        import os, pathlib
        pathlib.Path(os.environ["SCAIMIND_OUTPUT_DIR"], "scaimind_model.py").write_text(
            "class M:\\n"
            "    def score(self, prompt, continuation): return -1.0, 1\\n"
            "    def generate(self, prompt, max_tokens): return 'yes'\\n"
            "def load(path): return M()\\n"
        )
    """
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(
            makes, output_config={"register_model": True, "model_name": "m"}
        )
        assert status_of(await client.end(job_id)) == "COMPLETED"
        data = client.write("e.jsonl", '{"prompt": "?", "answer": "yes"}\n')
        evaluation = await client.call(
            "SubmitEvaluation",
            SubmitEvaluationRequest(
                job_id=job_id,
                model_uri="scaiatlas://local/m",
                benchmarks=[Benchmark(name="exact_match", dataset=data)],
            ),
        )
        assert evaluation.model_uri == "scaiatlas://local/m@1"
        job = await client.end(evaluation.evaluation_id)
        assert status_of(job) == "COMPLETED", job
        done = await client.call(
            "GetEvaluation", GetEvaluationRequest(evaluation_id=evaluation.evaluation_id)
        )
        assert done.results[0].scores["exact_match"] == 1.0


async def test_a_plain_path_that_is_allowed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "a.jsonl").write_text("shared data")
    began = time.time()
    async with running(tmp_path / "data", allowed_paths=(shared,)) as (_, client):
        job_id = await client.submit(READS, data_config=sources(str(shared / "a.jsonl")))
        assert status_of(await client.end(job_id)) == "COMPLETED"
        log = await client.log(job_id)
        assert any(entry.message.startswith("shared data") for entry in log)
        code, _ = await refused(client, READS, data_config=sources("/etc/passwd"))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        code, _ = await refused(client, READS, output_config={"path": str(shared / "out")})
        assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert (shared / "a.jsonl").stat().st_mtime <= began
