"""Makes lists of jobs that are filtered by label, name, user or kind a matter of an index."""

import sqlite3


def index_filters(db: sqlite3.Connection) -> None:
    """A step of the store. Call within a transaction. Raises sqlite3.Error."""
    db.create_function("folded", 1, str.casefold, deterministic=True)
    for statement in (
        """
        -- What a list is filtered by, in the order of the tenant's jobs.
        CREATE TABLE job_search (
            tenant_id TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            job_id TEXT NOT NULL REFERENCES jobs,
            kind TEXT NOT NULL,
            user_id TEXT NOT NULL,
            -- Without its case.
            name TEXT NOT NULL,
            PRIMARY KEY (tenant_id, created_at, job_id)
        ) STRICT, WITHOUT ROWID
        """,
        """
        INSERT INTO job_search
        SELECT tenant_id, created_at, job_id, kind, user_id, folded(name) FROM jobs
        ORDER BY tenant_id, created_at, job_id
        """,
        "CREATE INDEX job_search_by_job ON job_search (job_id)",
        "CREATE INDEX job_search_by_user ON job_search (tenant_id, user_id, created_at, job_id)",
        "CREATE INDEX job_search_by_kind ON job_search (tenant_id, kind, created_at, job_id)",
        "ALTER TABLE job_labels RENAME TO labels_before",
        """
        CREATE TABLE job_labels (
            job_id TEXT NOT NULL REFERENCES jobs,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            tenant_id TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            PRIMARY KEY (job_id, key)
        ) STRICT, WITHOUT ROWID
        """,
        """
        INSERT INTO job_labels
        SELECT job_id, key, value, tenant_id, created_at FROM labels_before JOIN jobs USING (job_id)
        """,
        "DROP TABLE labels_before",
        """
        CREATE INDEX job_labels_by_value ON job_labels
            (tenant_id, key, value, created_at, job_id)
        """,
    ):
        db.execute(statement)
