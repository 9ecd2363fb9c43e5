"""Cached jobs can be filtered by user, label, name and kind, and deleted ones are marked.

A deleted job is a row with the status -1 and a revision that no copy exceeds,
so that nothing which another replica still holds of the job replaces it.

A replica of an earlier version that still runs does not write the new columns:
a job that it alone has seen passes no filter until another replica sees it.
"""

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

JOBS = "mod_scaimind_jobs"
_SOME = 5000


def upgrade() -> None:
    """Apply."""
    op.add_column(JOBS, sa.Column("name_folded", sa.Text(collation="C")))
    op.add_column(JOBS, sa.Column("user_id", sa.Text(collation="C")))
    op.add_column(JOBS, sa.Column("labels", JSONB))
    op.execute(f"COMMENT ON COLUMN {JOBS}.name_folded IS 'the name without its case'")
    _fill_in()
    op.create_index(f"{JOBS}_user_idx", JOBS, ["tenant_id", "user_id", "created_at", "job_id"])
    op.create_index(
        f"{JOBS}_labels_idx",
        JOBS,
        ["labels"],
        postgresql_using="gin",
        postgresql_ops={"labels": "jsonb_path_ops"},
        # A page of jobs is written at once: what is pending would be merged by whoever reads.
        postgresql_with={"fastupdate": "off"},
    )
    op.create_index(
        f"{JOBS}_deleted_idx", JOBS, ["synced_on"], postgresql_where=sa.text("status = -1")
    )


def downgrade() -> None:
    """Undo."""
    op.execute(f"DELETE FROM {JOBS} WHERE status = -1")
    op.drop_index(f"{JOBS}_deleted_idx")
    for column in ("name_folded", "user_id", "labels"):
        op.drop_column(JOBS, column)


def _fill_in() -> None:
    """Fill the columns in as the writer does: PostgreSQL folds case otherwise, and refuses NUL."""
    db = op.get_bind()
    tenant_id = job_id = ""
    while True:
        rows = db.execute(
            sa.text(
                "SELECT tenant_id, job_id, name, (job -> 'user_id')::text AS user_id,"
                f" (job -> 'labels')::text AS labels FROM {JOBS}"
                " WHERE (tenant_id, job_id) > (:tenant_id, :job_id)"
                " ORDER BY tenant_id, job_id LIMIT :some FOR UPDATE"
            ),
            {"tenant_id": tenant_id, "job_id": job_id, "some": _SOME},
        ).all()
        if not rows:
            return
        db.execute(
            sa.text(
                f"UPDATE {JOBS} AS known SET name_folded = told.folded, user_id = told.user_id,"
                " labels = told.labels"
                " FROM unnest(CAST(:tenants AS text[]), CAST(:jobs AS text[]),"
                " CAST(:folded AS text[]), CAST(:users AS text[]), CAST(:labels AS jsonb[]))"
                " AS told (tenant_id, job_id, folded, user_id, labels)"
                " WHERE (known.tenant_id, known.job_id) = (told.tenant_id, told.job_id)"
            ),
            {
                "tenants": [row.tenant_id for row in rows],
                "jobs": [row.job_id for row in rows],
                "folded": [row.name.casefold() for row in rows],
                "users": [_without_nul(json.loads(row.user_id or '""') or "") for row in rows],
                "labels": [_labels(row.labels) for row in rows],
            },
        )
        tenant_id, job_id = rows[-1].tenant_id, rows[-1].job_id


def _labels(text: str | None) -> str:
    labels = json.loads(text or "{}") or {}
    return json.dumps({_without_nul(key): _without_nul(value) for key, value in labels.items()})


def _without_nul(text: str) -> str:
    return text.replace("\0", "")
