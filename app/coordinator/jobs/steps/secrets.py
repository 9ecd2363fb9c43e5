"""Moves credentials out of a data directory of the time when they stood in submissions."""

import sqlite3
from pathlib import Path
from typing import Any

import structlog

from app.coordinator.jobs.secrets import JobSecrets, take_out
from app.coordinator.jobs.states import RETRYABLE, TERMINAL
from app.coordinator.storage.job_directory import JobDir, RunDir
from app.credentials import MASK, shown_value
from app.files.json_files import read_json, write_json
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

log = structlog.get_logger("scaimind.coordinator")


def move_secrets_apart(db: sqlite3.Connection) -> None:
    """Mask the credentials in all submissions, and in the files of their jobs.

    Those of jobs that may run again are put beside the store first, so that
    the step can be taken again when its transaction is rolled back. Call
    within a transaction. Raises OSError if they cannot be written, and
    sqlite3.Error; a job's file that cannot be changed is logged.
    """
    data_dir = Path(db.execute("PRAGMA database_list").fetchone()[2]).parent
    secrets = JobSecrets(data_dir / "secrets")
    # What is replaced must not stay in the database's free space.
    db.execute("PRAGMA secure_delete = ON")
    for (job_id,) in db.execute("SELECT job_id FROM jobs ORDER BY job_id").fetchall():
        status, stored = db.execute(
            "SELECT status, submission FROM jobs WHERE job_id = ?", (job_id,)
        ).fetchone()
        submission = SubmitJobRequest.FromString(stored)
        environment = submission.training_config.environment
        # A value that only looks masked was allowed, and is kept as any other.
        values = {name: MASK for name, value in environment.items() if value == MASK}
        values |= take_out(environment)
        if not values:
            continue
        if status not in TERMINAL - RETRYABLE:
            secrets.keep(job_id, values)
        db.execute(
            "UPDATE jobs SET submission = ? WHERE job_id = ?",
            (submission.SerializeToString(), job_id),
        )
        try:
            _mask_files(JobDir(data_dir / "jobs" / job_id))
        except (OSError, ValueError) as error:
            log.warning(
                "credentials_left_in_files",
                job_id=job_id,
                reason=str(error),
                advice="Remove config.json and runs/*/run.json of the job once it has ended.",
            )


def mask_ended(db: sqlite3.Connection) -> None:
    """Mask the credentials of jobs that cannot run again, in a store from before the step.

    An earlier coordinator takes them as variables with the value MASK. Raises
    sqlite3.Error.
    """
    db.execute("PRAGMA secure_delete = ON")
    ended = sorted(TERMINAL - RETRYABLE)
    for (job_id,) in db.execute(
        f"SELECT job_id FROM jobs WHERE status IN ({', '.join('?' * len(ended))})", ended
    ).fetchall():
        (stored,) = db.execute("SELECT submission FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        submission = SubmitJobRequest.FromString(stored)
        if take_out(submission.training_config.environment):
            db.execute(
                "UPDATE jobs SET submission = ? WHERE job_id = ?",
                (submission.SerializeToString(), job_id),
            )


def _mask_files(directory: JobDir) -> None:
    config = read_json(directory.config)
    if config is not None and _masked(config.get("training_config", {}).get("environment")):
        write_json(directory.config, config)
    runs = directory.path / "runs"
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        run = RunDir(path)
        spec = read_json(run.spec)
        # A runner that is only just starting has yet to read it.
        if spec is None or not (run.exit.exists() or run.runner.exists()):
            continue
        changed = [_masked(rank.get("env")) for rank in spec.get("ranks", ())]
        if any(changed):
            write_json(run.spec, spec)


def _masked(variables: Any) -> bool:
    """Mask the credentials among some variables; whether there were any."""
    if not isinstance(variables, dict):
        return False
    before = dict(variables)
    variables.update({name: shown_value(name, value) for name, value in before.items()})
    return variables != before
