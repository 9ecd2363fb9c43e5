"""Brings the record of changes into a store that has none."""

import sqlite3


def record_changes(db: sqlite3.Connection) -> None:
    """Make the tables of `record`, and count each job's latest change as its first.

    Call within a transaction. Raises sqlite3.Error.
    """
    for statement in (
        """
        CREATE TABLE job_changes (
            tenant_id TEXT NOT NULL,
            version INTEGER NOT NULL,
            job_id TEXT NOT NULL UNIQUE,
            -- 0 unless the job was deleted.
            deleted_at INTEGER NOT NULL,
            PRIMARY KEY (tenant_id, version)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX job_deletions ON job_changes (tenant_id, version) WHERE deleted_at > 0",
        """
        CREATE TABLE change_versions (
            tenant_id TEXT PRIMARY KEY,
            newest INTEGER NOT NULL,
            -- Deletions of later versions are all there.
            forgotten INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE change_record (
            epoch TEXT NOT NULL,
            boot TEXT NOT NULL,
            inode INTEGER NOT NULL,
            closed INTEGER NOT NULL
        ) STRICT
        """,
        """
        INSERT INTO job_changes
        SELECT tenant_id, row_number() OVER (PARTITION BY tenant_id ORDER BY updated_at, job_id),
            job_id, 0
        FROM jobs
        """,
        "INSERT INTO change_versions SELECT tenant_id, count(*), 0 FROM jobs GROUP BY tenant_id",
    ):
        db.execute(statement)
