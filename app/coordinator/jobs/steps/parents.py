"""Makes the list of a job's retries a matter of an index."""

import sqlite3


def index_parents(db: sqlite3.Connection) -> None:
    """A step of the store. Call within a transaction. Raises sqlite3.Error."""
    for statement in (
        "ALTER TABLE job_search ADD COLUMN parent_job_id TEXT NOT NULL DEFAULT ''",
        # A row whose state cannot be read is that of a job that fails at the next start.
        """
        UPDATE job_search SET parent_job_id = parents.parent_job_id
        FROM (
            SELECT job_id, json_extract(state, '$.parent_job_id') AS parent_job_id
            FROM jobs WHERE json_valid(state)
        ) AS parents
        WHERE parents.job_id = job_search.job_id AND parents.parent_job_id <> ''
        """,
        """
        CREATE INDEX job_search_by_parent ON job_search
            (tenant_id, parent_job_id, created_at, job_id) WHERE parent_job_id <> ''
        """,
    ):
        db.execute(statement)
