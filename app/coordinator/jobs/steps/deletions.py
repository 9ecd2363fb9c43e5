"""Makes room in the store for deleted jobs, and for the sizes of those that are kept."""

import sqlite3
from typing import Final

#: What an ended job may read of another one if it is retried; see `deletion_rows`. A damaged row
#: names nothing: it must neither stop the store nor keep itself from being replaced.
RESUMES_FROM: Final = "CASE WHEN json_valid(state) THEN json_extract(state, '$.resume_from') END"
EXPORTS_OF: Final = "CASE WHEN json_valid(state) THEN json_extract(state, '$.artefacts_of') END"


def keep_deletions(db: sqlite3.Connection) -> None:
    """A step of the store. Call within a transaction. Raises sqlite3.Error."""
    for statement in (
        """
        -- Jobs that are no more, until the last of their files is gone.
        CREATE TABLE deleted_jobs (
            job_id TEXT PRIMARY KEY,
            tenant_id TEXT NOT NULL,
            deleted_at INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        """
        -- Bytes on the disk of jobs that have ended, once they were measured.
        CREATE TABLE kept_bytes (
            job_id TEXT PRIMARY KEY REFERENCES jobs,
            directory INTEGER NOT NULL,
            checkpoints INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX jobs_by_end ON jobs (ended_at, job_id) WHERE ended_at > 0",
        f"CREATE INDEX jobs_by_resume ON jobs ({RESUMES_FROM}) WHERE {RESUMES_FROM} <> ''",
        f"CREATE INDEX jobs_by_export ON jobs ({EXPORTS_OF}) WHERE {EXPORTS_OF} <> ''",
    ):
        db.execute(statement)
