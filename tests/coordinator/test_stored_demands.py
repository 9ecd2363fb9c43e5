"""Jobs that were stored when a job without `cpu_count` was counted as one core."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest
from app.coordinator.jobs.rows import values_of
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.steps.demands import ask_for_no_cores
from app.coordinator.jobs.steps.store_steps import STEPS, bring_up
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest


def _job(job_id: str, status: Status, cpu_count: int, ended: int = 0) -> JobRecord:
    submission = SubmitJobRequest(name=job_id)
    submission.resource_config.cpu_count = cpu_count
    return JobRecord(
        job_id=job_id,
        tenant_id="acme",
        user_id="ann",
        name=job_id,
        submission=submission,
        resource_request=ResourceRequest(cpus=max(cpu_count, 1)),
        status=status,
        created_at=1,
        updated_at=2,
        ended_at=ended,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    running = replace(
        _job("running", Status.TRAINING, 0), placement=(Allocation("local", (), 1, 0),), run_count=1
    )
    path = tmp_path / "coordinator.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        bring_up(db, path, STEPS[: STEPS.index(ask_for_no_cores)])
        for job in (
            _job("waiting", Status.QUEUED, 0),
            _job("asked", Status.QUEUED, 1),
            _job("ended", Status.FAILED, 0, ended=2),
            running,
        ):
            values = values_of(job)
            db.execute(f"INSERT INTO jobs VALUES ({', '.join('?' * len(values))})", values)
    return path


def test_who_asked_for_no_cores_asks_for_none(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        cpus = {}
        for job_id in ("waiting", "asked", "ended", "running"):
            job = store.job("acme", job_id)
            assert job is not None
            cpus[job_id] = job.resource_request.cpus
            if job_id == "running":
                assert job.placement == (Allocation("local", (), 1, 0),)
    assert cpus == {"waiting": 0, "asked": 1, "ended": 1, "running": 0}
