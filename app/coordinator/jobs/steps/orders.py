"""Makes a page of jobs in any order a matter of an index."""

import sqlite3


def index_orders(db: sqlite3.Connection) -> None:
    """A step of the store. Call within a transaction. Raises sqlite3.Error."""
    for name, column in (
        ("jobs_by_update", "updated_at"),
        ("jobs_by_priority", "priority"),
        ("jobs_by_name", "name"),
        ("jobs_by_status_order", "status"),
    ):
        db.execute(f"CREATE INDEX {name} ON jobs (tenant_id, {column}, job_id)")
