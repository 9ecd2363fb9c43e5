"""Retention by age and by size, the free space that stays, and what is measured of the disk."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from aiohttp import ClientSession

from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, ListJobsRequest
from tests.coordinator.harness import Client, running, status_of, submission
from tests.coordinator.scripts import WAITS

DAY = 24 * 3600 * 1_000_000
#: A megabyte, in its own directory and as a checkpoint.
LEAVES = """
    import os
    checkpoint = os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/step-1"
    os.mkdir(checkpoint)
    open(checkpoint + "/at", "wb").write(os.urandom(500_000))
    open("work", "wb").write(os.urandom(500_000))
    if os.environ.get("FAILS"):
        raise SystemExit(3)
"""


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000

    def __call__(self) -> int:
        self.now += 1
        return self.now


async def ids(client: Client) -> set[str]:
    page = await client.call("ListJobs", ListJobsRequest(page_size=100))
    return {job.job_id for job in page.jobs}


async def test_jobs_go_by_their_age_and_what_others_read_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    async with running(tmp_path, clock=clock, retention_days=30) as (coordinator, client):
        old, read, retried = [await client.submit(LEAVES) for _ in range(3)]
        for job_id in (old, read, retried):
            assert status_of(await client.end(job_id)) == "COMPLETED"

        def checkpoint(of: str) -> str:
            return f"scaidrive://local/jobs/{of}/checkpoints/step-1"

        paused = await client.submit(
            WAITS, training_config={"resume_from_checkpoint": checkpoint(read)}
        )
        await client.until_line(paused, "ready")
        clock.now += 29 * DAY
        failed = await client.submit(
            "raise SystemExit(3)", training_config={"resume_from_checkpoint": checkpoint(retried)}
        )
        assert status_of(await client.end(failed)) == "FAILED"
        await coordinator.keeping.retention.look()
        assert await ids(client) == {old, read, retried, paused, failed}
        clock.now += 2 * DAY
        await coordinator.keeping.retention.look()
        # One is read by a job that runs, one by the retry of a job that has failed.
        assert await ids(client) == {read, retried, paused, failed}
        lines = capsys.readouterr().out
        assert lines.count("job_deleted") == 1
        assert "retention_days" in lines
        assert "job.expire" in lines
        await client.call("CancelJob", CancelJobRequest(job_id=paused))
        await client.end(paused)
        await coordinator.keeping.retention.look()
        assert await ids(client) == {retried, paused, failed}


async def test_what_a_retry_would_read_as_its_model_stays(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock=clock, retention_days=30) as (coordinator, client):
        read, above, old, done = [await client.submit(LEAVES) for _ in range(4)]
        for job_id in (read, above, old, done):
            assert status_of(await client.end(job_id)) == "COMPLETED"
        clock.now += 29 * DAY

        async def reads(path: str, script: str) -> str:
            model = {"model_id": f"scaidrive://local/jobs/{path}"}
            job_id = await client.submit(script, training_config={"base_model": model})
            await client.end(job_id)
            return job_id

        failed = [
            await reads(f"{read}/checkpoints/step-1", "raise SystemExit(3)"),
            await reads(f"{above}/", "raise SystemExit(3)"),
            await reads(f"{old}/output", "raise SystemExit(3)"),
        ]
        completed = await reads(f"{done}/checkpoints/step-1", "pass")
        clock.now += 2 * DAY
        await coordinator.keeping.retention.look()
        assert await ids(client) == {read, above, *failed, completed}


async def test_jobs_go_by_their_size_the_oldest_end_first(tmp_path: Path) -> None:
    async with running(tmp_path, retention_bytes=2_600_000, metrics_address="127.0.0.1:0") as (
        coordinator,
        client,
    ):
        jobs = [await client.submit(LEAVES) for _ in range(3)]
        for job_id in jobs:
            await client.end(job_id)
        ended = [await client.job(job_id) for job_id in jobs]
        ended.sort(key=lambda job: job.ended_at.ToNanoseconds())
        await coordinator.keeping.retention.look()
        assert await ids(client) == {job.job_id for job in ended[1:]}
        async with (
            ClientSession() as session,
            session.get(f"http://127.0.0.1:{coordinator.metrics_port}/metrics") as answer,
        ):
            text = await answer.text()
        for kind in ("jobs", "checkpoints", "cache", "packages", "models", "store"):
            [line] = [each for each in text.splitlines() if f'disk_bytes{{kind="{kind}"}}' in each]
            if kind in ("jobs", "checkpoints"):
                assert 900_000 < float(line.split()[1]) < 2_000_000, line


async def test_below_the_floor_no_job_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, min_free_bytes=10 * 1024**2) as (_, client):
        client.write("train.py", "pass")
        real = shutil.disk_usage(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(
                "app.coordinator.storage.free_space.shutil.disk_usage",
                lambda _: SimpleNamespace(total=real.total, free=9 * 1024**2),
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call("SubmitJob", submission())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "9 MiB free" in (caught.value.details() or "")
        assert "min_free_bytes" in (caught.value.details() or "")
        job_id = (await client.call("SubmitJob", submission())).job_id
        await client.end(job_id)
        assert await ids(client) == {job_id}
