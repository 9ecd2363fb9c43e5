"""What a submission may set of its process's environment, and what becomes of older ones."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest
from tests.coordinator.harness import running, status_of

TOLD = """
    import json, os
    names = ("CUDA_VISIBLE_DEVICES", "RANK", "MINE", "HOME", "SCAIMIND_JOB_ID", "TMPDIR")
    print(json.dumps({name: os.environ.get(name, "") for name in names}))
"""


async def test_what_the_coordinator_sets_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        for name in ("CUDA_VISIBLE_DEVICES", "HOME", "TMPDIR", "SCAIMIND_X", "MASTER_PORT"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.submit(TOLD, training_config={"environment": {name: "0"}})
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            details = str(refused.value.details())
            assert details.startswith(f"training_config.environment: '{name}' is set by the")


async def test_of_a_job_that_was_accepted_before_it_is_overridden_and_told(tmp_path: Path) -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    clock = lambda: int(now.timestamp() * 1e6)  # noqa: E731  # it has to follow `now`
    given = {"CUDA_VISIBLE_DEVICES": "7", "RANK": "3", "HOME": "/root", "SCAIMIND_JOB_ID": "other"}
    async with running(tmp_path, clock=clock) as (_, client):
        later = SubmitJobRequest().scheduling_config
        later.not_before.FromDatetime(now + timedelta(hours=1))
        job_id = await client.submit(
            TOLD, scheduling_config=later, training_config={"environment": {"MINE": "yes"}}
        )
    with closing(sqlite3.connect(tmp_path / "coordinator.db")) as db:
        (stored,) = db.execute("SELECT submission FROM jobs").fetchone()
        submission = SubmitJobRequest.FromString(stored)
        submission.training_config.environment.update(given)
        db.execute("UPDATE jobs SET submission = ?", (submission.SerializeToString(),))
        db.commit()
    now += timedelta(hours=2)
    async with running(tmp_path, clock=clock) as (_, client):
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        log = [entry.message for entry in await client.log(job_id)]
        for name in given:
            assert any(
                line.startswith(f"{name} of training_config.environment is left out: ")
                for line in log
            ), log
        (told,) = (line for line in log if line.startswith("{"))
        assert '"CUDA_VISIBLE_DEVICES": ""' in told
        assert '"RANK": ""' in told
        assert '"MINE": "yes"' in told
        assert f'"SCAIMIND_JOB_ID": "{job_id}"' in told
        assert '"HOME": "/root"' not in told
