"""Deleting a job that has ended: it is gone at once, its files soon, and nothing of others."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    ListCheckpointsRequest,
    ListJobsRequest,
    RetryJobRequest,
)
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest, ListJobLogsRequest
from tests.coordinator.harness import Client, client_of, running, status_of, submission
from tests.coordinator.scripts import WAITS

#: Leaves something of every kind.
LEAVES = """
    import json, os
    checkpoint = os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/step-1"
    os.mkdir(checkpoint)
    open(checkpoint + "/at", "wb").write(b"c" * 100_000)
    open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/model", "wb").write(b"m" * 100_000)
    os.makedirs("a/b/c")
    open("a/b/c/work", "wb").write(b"w" * 100_000)
    with open(os.environ["SCAIMIND_METRICS_FILE"], "a") as file:
        file.write(json.dumps({"step": 1, "loss": 0.5}) + "\\n")
    print("done")
"""


async def delete(client: Client, job_id: str) -> int:
    freed: int = (await client.call("DeleteJob", DeleteJobRequest(job_id=job_id))).freed_bytes
    return freed


async def refusal(client: Client, job_id: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await delete(client, job_id)
    return caught.value


async def without_files(data: Path) -> None:
    """Wait until the files of all deleted jobs are gone."""

    def left() -> int:
        with closing(sqlite3.connect(data / "coordinator.db")) as db:
            count: int = db.execute("SELECT count(*) FROM deleted_jobs").fetchone()[0]
            return count

    async with asyncio.timeout(60):
        while left():  # noqa: ASYNC110  # the store tells nobody
            await asyncio.sleep(0.02)


async def test_a_deleted_job_is_not_found_anywhere(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(LEAVES, labels={"team": "nlp"}, idempotency_key="once")
        other = await client.submit("print('kept')")
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job
        await client.end(other)
        assert await delete(client, job_id) > 200_000
        for method, request in {
            "GetJob": GetJobRequest(job_id=job_id),
            "DeleteJob": DeleteJobRequest(job_id=job_id),
            "CancelJob": CancelJobRequest(job_id=job_id),
            "RetryJob": RetryJobRequest(job_id=job_id),
            "ListCheckpoints": ListCheckpointsRequest(job_id=job_id),
            "GetJobMetrics": GetJobMetricsRequest(job_id=job_id),
            "ListJobLogs": ListJobLogsRequest(job_id=job_id),
        }.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call(method, request)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND, method
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.log(job_id)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        listed = await client.call("ListJobs", ListJobsRequest())
        assert [each.job_id for each in listed.jobs] == [other]
        assert listed.total_count == 1
        assert not (
            await client.call("ListJobs", ListJobsRequest(label_filter={"team": "nlp"}))
        ).jobs

        await without_files(tmp_path)
        assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == [other]
        drive = tmp_path / "drive/local/jobs" / job_id
        # What it has exported stays.
        assert [path.name for path in drive.iterdir()] == ["output"]
        assert (drive / "output/model").stat().st_size == 100_000
        assert (await client.log(other))[-1].message


async def test_a_key_of_a_deleted_job_cannot_be_used_again(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.write("train.py", "pass")
        request = submission(idempotency_key="nightly")
        job_id = (await client.call("SubmitJob", request)).job_id
        await client.end(job_id)
        await delete(client, job_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("SubmitJob", request)
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
        assert job_id in (caught.value.details() or "")


async def test_only_a_job_that_has_ended_and_of_ones_own_tenant(tmp_path: Path) -> None:
    async with running(tmp_path) as (coordinator, client):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        assert (await refusal(client, job_id)).code() is grpc.StatusCode.FAILED_PRECONDITION
        async with client_of(coordinator.port, client.drive, "acme") as foreign:
            assert (await refusal(foreign, job_id)).code() is grpc.StatusCode.NOT_FOUND
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await client.end(job_id)
        async with client_of(coordinator.port, client.drive, "acme") as foreign:
            assert (await refusal(foreign, job_id)).code() is grpc.StatusCode.NOT_FOUND
        answers = await asyncio.gather(
            *(delete(client, job_id) for _ in range(5)), return_exceptions=True
        )
        assert sum(isinstance(answer, int) for answer in answers) == 1


async def test_a_job_stays_as_long_as_another_reads_its_files(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(LEAVES)
        await client.end(job_id)
        checkpoint = f"scaidrive://local/jobs/{job_id}/checkpoints/step-1"
        reader = await client.submit(WAITS, training_config={"resume_from_checkpoint": checkpoint})
        await client.until_line(reader, "ready")
        refused = await refusal(client, job_id)
        assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reader in (refused.details() or "")
        await client.call("CancelJob", CancelJobRequest(job_id=reader))
        await client.end(reader)
        await delete(client, job_id)


async def test_watchers_of_a_job_that_is_deleted_are_told(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit("for n in range(60000): print('x' * 200)")
        await client.end(job_id)
        watching = client.watch(job_id)
        await anext(watching)
        await delete(client, job_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in watching:
                pass
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_is_left_when_the_coordinator_ends_goes_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "app.coordinator.retention.removals.KeptFiles.remove",
            lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")),
        )
        async with running(tmp_path) as (_, client):
            job_id = await client.submit(LEAVES)
            await client.end(job_id)
            await delete(client, job_id)
    assert (tmp_path / "jobs" / job_id).exists()
    async with running(tmp_path) as (_, client):
        await without_files(tmp_path)
        assert not (tmp_path / "jobs" / job_id).exists()
        assert not (tmp_path / "drive/local/jobs" / job_id / "checkpoints").exists()
        with pytest.raises(grpc.aio.AioRpcError):
            await client.job(job_id)


async def test_an_evaluation_is_deleted_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        model = client.write("model/weights", "w")
        data = client.write("data.jsonl", '{"prompt": "a", "completion": "b"}\n')
        request = SubmitEvaluationRequest(
            model_uri=model.removesuffix("/weights"),
            benchmarks=[Benchmark(name="perplexity", dataset=data)],
        )
        evaluation = await client.call("SubmitEvaluation", request)
        await client.end(evaluation.evaluation_id)
        await delete(client, evaluation.evaluation_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call(
                "GetEvaluation", GetEvaluationRequest(evaluation_id=evaluation.evaluation_id)
            )
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
