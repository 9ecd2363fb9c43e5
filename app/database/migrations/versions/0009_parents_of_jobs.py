"""Cached jobs can be filtered by their parent.

A replica of an earlier version that still runs writes no parent: a retry that it alone has
seen is not listed as one until another replica sees it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

JOBS = "mod_scaimind_jobs"


def upgrade() -> None:
    """Apply."""
    op.add_column(
        JOBS, sa.Column("parent_job_id", sa.Text(collation="C"), nullable=False, server_default="")
    )
    # What PostgreSQL cannot hold as text is no job's id.
    op.execute(
        f"UPDATE {JOBS} SET parent_job_id = job ->> 'parent_job_id'"
        r" WHERE job::text LIKE '%\"parent_job_id\"%' AND job::text NOT LIKE '%\\u0000%'"
        " AND job ->> 'parent_job_id' <> ''"
    )
    op.create_index(
        f"{JOBS}_parent_idx",
        JOBS,
        ["tenant_id", "parent_job_id"],
        postgresql_where=sa.text("parent_job_id <> ''"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_column(JOBS, "parent_job_id")
