"""Brings what stored jobs ask for to what it means now."""

import sqlite3

import orjson

from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest


def ask_for_no_cores(db: sqlite3.Connection) -> None:
    """Let jobs that have not ended, and gave no `cpu_count`, use what is idle.

    They were counted as one core, and would be held to one. What a running
    job holds stays as it is until its run is over. Call within a transaction.
    Raises sqlite3.Error.
    """
    rows = db.execute("SELECT job_id, submission, state FROM jobs WHERE ended_at = 0").fetchall()
    for job_id, submission, state in rows:
        if SubmitJobRequest.FromString(submission).resource_config.cpu_count:
            continue
        kept = orjson.loads(state)
        kept["demand"]["cpus"] = 0
        db.execute(
            "UPDATE jobs SET state = ? WHERE job_id = ?", (orjson.dumps(kept).decode(), job_id)
        )
