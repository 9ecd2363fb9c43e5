"""A start with jobs in any stored state: one that cannot be restored keeps no other from it."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from app.coordinator.storage.job_directory import JobDir
from app.files.json_files import read_json
from generated.mindcoordinator.v1.cluster_pb2 import GetNodeRequest
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, ListJobsRequest
from tests.coordinator.harness import client_of, coordinator_process, running, status_of
from tests.coordinator.scripts import WAITS
from tests.processes import pid_lives


def change(path: Path, job_id: str, column: str, value: object) -> None:
    """Change what is stored of a job behind the coordinator's back."""
    with closing(sqlite3.connect(path / "coordinator.db", isolation_level=None)) as db:
        db.execute(f"UPDATE jobs SET {column} = ? WHERE job_id = ?", (value, job_id))


def state_of(path: Path, job_id: str) -> dict[str, Any]:
    with closing(sqlite3.connect(path / "coordinator.db")) as db:
        row = db.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    state: dict[str, Any] = orjson.loads(row[0])
    return state


@pytest.mark.parametrize(
    ("column", "value"),
    [
        pytest.param("state", "{", id="no JSON"),
        pytest.param("state", "{}", id="nothing in it"),
        pytest.param("status", 99, id="an unknown state"),
        pytest.param("submission", b"\xff\xff", id="no submission"),
        pytest.param("kind", "other", id="an unknown kind"),
    ],
)
async def test_a_job_that_cannot_be_read_is_failed_and_the_others_go_on(
    tmp_path: Path, column: str, value: object
) -> None:
    async with (
        coordinator_process(tmp_path) as process,
        client_of(process.port, tmp_path / "drive") as client,
    ):
        odd, good = await client.submit(WAITS), await client.submit(WAITS)
        for job_id in (odd, good):
            await client.until_line(job_id, "ready")
        await process.stop(signal.SIGKILL)
    change(tmp_path, odd, column, value)
    who = read_json(JobDir(tmp_path / "jobs" / odd).run(1).runner)
    assert who is not None
    assert pid_lives(who["pid"])
    async with running(tmp_path) as (_, client):
        job = await client.job(odd)
        assert status_of(job) == "FAILED"
        assert "could not be read" in job.error_message
        assert not pid_lives(who["pid"])
        job = await client.job(good)
        assert (status_of(job), job.run_count) == ("TRAINING", 1)
        assert (await client.call("ListJobs", ListJobsRequest())).total_count == 2
        node = await client.call("GetNode", GetNodeRequest(node_id="local"))
        assert list(node.running_job_ids) == [good]
        await client.call("CancelJob", CancelJobRequest(job_id=good))
        assert status_of(await client.end(good)) == "CANCELLED"


async def test_a_job_whose_resources_are_another_s_is_failed(tmp_path: Path) -> None:
    async with (
        coordinator_process(tmp_path) as process,
        client_of(process.port, tmp_path / "drive") as client,
    ):
        jobs = [await client.submit(WAITS) for _ in range(2)]
        for job_id in jobs:
            await client.until_line(job_id, "ready")
        await process.stop(signal.SIGKILL)
    for job_id in jobs:
        state = state_of(tmp_path, job_id)
        (share,) = state["placement"]
        state["placement"] = [{**share, "gpus": [0]}]
        change(tmp_path, job_id, "state", orjson.dumps(state).decode())
    async with running(tmp_path) as (_, client):
        job = await client.end(jobs[1])
        assert status_of(job) == "FAILED"
        assert job.error_message
        assert status_of(await client.job(jobs[0])) == "TRAINING"
        await client.call("CancelJob", CancelJobRequest(job_id=jobs[0]))
        assert status_of(await client.end(jobs[0])) == "CANCELLED"
        assert status_of(await client.end(await client.submit("print('next')"))) == "COMPLETED"


@pytest.mark.parametrize("name", ["runner.json", "exit.json", "run.json"])
async def test_a_start_with_any_file_of_a_run_damaged_ends_that_job_alone(
    tmp_path: Path, name: str
) -> None:
    async with (
        coordinator_process(tmp_path) as process,
        client_of(process.port, tmp_path / "drive") as client,
    ):
        odd, good = await client.submit(WAITS), await client.submit(WAITS)
        for job_id in (odd, good):
            await client.until_line(job_id, "ready")
        await process.stop(signal.SIGKILL)
    directory = JobDir(tmp_path / "jobs" / odd).run(1)
    who = read_json(directory.runner)
    assert who is not None
    psutil.Process(who["pid"]).kill()
    (directory.path / name).write_text("{")
    async with running(tmp_path) as (_, client):
        assert status_of(await client.end(odd)) == "FAILED"
        assert status_of(await client.job(good)) == "TRAINING"
        await client.call("CancelJob", CancelJobRequest(job_id=good))
        assert status_of(await client.end(good)) == "CANCELLED"
