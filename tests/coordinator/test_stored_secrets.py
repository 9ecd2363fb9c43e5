"""A data directory of the time when credentials stood in submissions."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.rows import values_of
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.steps.store_steps import STEPS, UnusableStore, bring_up
from app.coordinator.storage.job_directory import JobDir
from app.files.json_files import read_json, write_json
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

TOKEN = "hf_the-token-of-the-old-directory"
GIVEN = {"HF_TOKEN": TOKEN, "LOOKS_MASKED": "***", "EPOCHS": "3"}
SHOWN = {"HF_TOKEN": "***", "LOOKS_MASKED": "***", "EPOCHS": "3"}


def _job(job_id: str, status: Status, **environment: str) -> JobRecord:
    submission = SubmitJobRequest(name=job_id)
    submission.training_config.environment.update(environment)
    return JobRecord(
        job_id=job_id,
        tenant_id="acme",
        user_id="ann",
        name=job_id,
        submission=submission,
        resource_request=ResourceRequest(),
        status=status,
        created_at=1,
        updated_at=2,
        ended_at=2,
    )


def _old(data_dir: Path, *jobs: JobRecord) -> None:
    path = data_dir / "coordinator.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        bring_up(db, path, STEPS[:1])
        for job in jobs:
            values = values_of(job)
            db.execute(f"INSERT INTO jobs VALUES ({', '.join('?' * len(values))})", values)


def _environment(store: SqliteStore, job_id: str) -> dict[str, str]:
    job = store.job("acme", job_id)
    assert job is not None
    return dict(job.submission.training_config.environment)


def test_credentials_of_stored_jobs_move_apart(tmp_path: Path) -> None:
    _old(
        tmp_path,
        _job("waiting", Status.QUEUED, **GIVEN),
        _job("failed", Status.FAILED, **GIVEN),
        _job("completed", Status.COMPLETED, **GIVEN),
        _job("plain", Status.QUEUED, EPOCHS="3"),
    )
    with closing(SqliteStore(tmp_path / "coordinator.db")) as store:
        for job_id in ("waiting", "failed", "completed"):
            assert _environment(store, job_id) == SHOWN
        assert _environment(store, "plain") == {"EPOCHS": "3"}
        kept = JobSecrets(tmp_path / "secrets")
        for job_id in ("waiting", "failed"):
            assert kept.of(job_id) == {"HF_TOKEN": TOKEN, "LOOKS_MASKED": "***"}
        assert sorted(kept.sweep()) == ["failed", "waiting"]
        for file in tmp_path.glob("coordinator.db*"):
            # The copy is for going back to the earlier version.
            assert (TOKEN.encode() in file.read_bytes()) == file.name.endswith(".v1"), file


def test_the_copy_has_no_credentials_of_jobs_that_cannot_run_again(tmp_path: Path) -> None:
    # Large ones have pages of their own in the database.
    secrets = {status: f"hf_{status.name}-{'x' * 20_000}" for status in Status}
    _old(
        tmp_path,
        *(
            _job(status.name, status, HF_TOKEN=secret, EPOCHS="3")
            for status, secret in secrets.items()
        ),
    )
    SqliteStore(tmp_path / "coordinator.db").close()
    assert not list(tmp_path.glob("*.copying*"))
    copy = (tmp_path / "coordinator.db.v1").read_bytes()
    told = {status for status in Status if f"hf_{status.name}-".encode() in copy}
    assert set(Status) - told == {Status.COMPLETED, Status.CANCELLED}
    # An earlier coordinator can read it.
    with closing(sqlite3.connect(tmp_path / "coordinator.db.v1")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        (stored,) = db.execute("SELECT submission FROM jobs WHERE job_id = 'COMPLETED'").fetchone()
    environment = SubmitJobRequest.FromString(stored).training_config.environment
    assert environment == {"HF_TOKEN": "***", "EPOCHS": "3"}


def test_credentials_in_files_of_stored_jobs_are_masked(tmp_path: Path) -> None:
    _old(tmp_path, _job("failed", Status.FAILED, **GIVEN), _job("broken", Status.FAILED, **GIVEN))
    directory = JobDir(tmp_path / "jobs" / "failed")
    for number in (1, 2, 3):
        run = directory.run(number)
        run.path.mkdir(parents=True)
        env = {**GIVEN, "PATH": "/bin"}
        write_json(run.spec, {"metrics_before": 7, "ranks": [{"env": env}, {"env": env}]})
    write_json(directory.run(1).exit, {})
    write_json(directory.run(2).runner, {})
    write_json(directory.config, {"job_id": "failed", "training_config": {"environment": GIVEN}})
    broken = JobDir(tmp_path / "jobs" / "broken")
    broken.path.mkdir()
    broken.config.write_text("{")

    with closing(SqliteStore(tmp_path / "coordinator.db")) as store:
        assert _environment(store, "broken") == SHOWN

    assert read_json(directory.config) == {
        "job_id": "failed",
        "training_config": {"environment": SHOWN},
    }
    masked = {**SHOWN, "PATH": "/bin"}
    for number in (1, 2):
        assert read_json(directory.run(number).spec) == {
            "metrics_before": 7,
            "ranks": [{"env": masked}, {"env": masked}],
        }
    # Its runner may be about to read it.
    assert TOKEN in directory.run(3).spec.read_text()


def test_a_step_that_was_broken_off_is_taken_again(tmp_path: Path) -> None:
    _old(tmp_path, _job("waiting", Status.QUEUED, **GIVEN))
    (tmp_path / "secrets").write_text("in the way")
    with pytest.raises(UnusableStore, match="credentials could not be moved"):
        SqliteStore(tmp_path / "coordinator.db")
    (tmp_path / "secrets").unlink()
    SqliteStore(tmp_path / "coordinator.db").close()
    assert JobSecrets(tmp_path / "secrets").of("waiting")["HF_TOKEN"] == TOKEN
