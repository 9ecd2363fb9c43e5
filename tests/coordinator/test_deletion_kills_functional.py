"""The coordinator is killed at random moments while jobs are deleted: each is there or is not."""

import asyncio
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import DeleteJobRequest
from tests.coordinator.harness import Client, client_of, status_of
from tests.coordinator.nursery import nursery

#: Has enough files that removing them takes longer than a moment.
LEAVES = """
    import os
    for place in (".", os.environ["SCAIMIND_OUTPUT_DIR"], os.environ["SCAIMIND_CHECKPOINT_DIR"]):
        for folder in range(20):
            os.makedirs(f"{place}/step-{folder}/a")
            for file in range(30):
                open(f"{place}/step-{folder}/a/{file}", "w").write("kept")
    print("done")
"""
FILES = 20 * 30


async def delete(client: Client, job_id: str) -> bool:
    """Whether the coordinator has answered that the job is deleted."""
    try:
        await client.call("DeleteJob", DeleteJobRequest(job_id=job_id))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


async def is_there(client: Client, job_id: str) -> bool:
    try:
        await client.job(job_id)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return True


def rows(data: Path, job_id: str) -> int:
    """Rows of the store that name a job."""
    with closing(sqlite3.connect(data / "coordinator.db")) as db:
        tables = ("jobs", "job_labels", "checkpoints", "kept_bytes", "deleted_jobs")
        found: int = sum(
            db.execute(f"SELECT count(*) FROM {table} WHERE job_id = ?", (job_id,)).fetchone()[0]
            for table in tables
        )
        return found


def files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "kills", [3, pytest.param(40, marks=pytest.mark.slow)], ids=["few", "many"]
)
async def test_a_deletion_is_whole_whenever_the_coordinator_dies(
    tmp_path: Path, kills: int
) -> None:
    choose = random.Random(kills)
    data, drive = tmp_path / "data", tmp_path / "data/drive"
    answered: dict[str, bool] = {}
    async with nursery(data) as coordinators:
        life = await coordinators.life()
        port = await life.port()
        async with client_of(port, drive) as client:
            jobs = [await client.submit(LEAVES, labels={"a": "b"}) for _ in range(kills)]
            for job_id in jobs:
                assert status_of(await client.end(job_id)) == "COMPLETED"
        for job_id in jobs:
            async with client_of(port, drive) as client:
                deleting = asyncio.create_task(delete(client, job_id))
                await asyncio.sleep(choose.uniform(0, 0.1))
                await life.end(signal.SIGKILL)
                answered[job_id] = await deleting
            life = await coordinators.life()
            port = await life.port()
        async with client_of(port, drive) as client:
            there = {job_id: await is_there(client, job_id) for job_id in jobs}
            for job_id in jobs:
                if there[job_id]:
                    assert not answered[job_id], "an answered deletion was undone"
                    assert files(data / "jobs" / job_id / "work") == FILES
                    assert files(drive / "local/jobs" / job_id / "checkpoints") == FILES
                    assert (await client.log(job_id))[0].message
                    continue
                async with asyncio.timeout(60):
                    while rows(data, job_id):  # noqa: ASYNC110  # the store tells nobody
                        await asyncio.sleep(0.05)
                assert not (data / "jobs" / job_id).exists()
                assert not (drive / "local/jobs" / job_id / "checkpoints").exists()
                assert files(drive / "local/jobs" / job_id / "output") == FILES
        await life.end(signal.SIGTERM)
    assert len(set(there.values())) == 2 or kills < 40, "no kill came before or after the mark"
