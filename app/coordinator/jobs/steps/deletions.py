"""Makes room in the store for deleted jobs, and for the sizes of those that are kept."""

import sqlite3

#: What an ended job may read of another one if it is retried; see `deletion_rows`.
_RESUMES_FROM = "json_extract(state, '$.resume_from')"
_EXPORTS_OF = "json_extract(state, '$.artefacts_of')"


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
        f"CREATE INDEX jobs_by_resume ON jobs ({_RESUMES_FROM}) WHERE {_RESUMES_FROM} <> ''",
        f"CREATE INDEX jobs_by_export ON jobs ({_EXPORTS_OF}) WHERE {_EXPORTS_OF} <> ''",
    ):
        db.execute(statement)
