"""Credentials among the variables of cached jobs are masked, as they are from here on in answers.

A replica of an earlier version that still runs can write a copy with them
again; it is replaced when the job is next seen.
"""

import json

import sqlalchemy as sa
from alembic import op

from app.credentials import shown_value

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SOME = 500


def upgrade() -> None:
    """Apply."""
    db = op.get_bind()
    tenant_id = job_id = ""
    while True:
        rows = db.execute(
            sa.text(
                "SELECT tenant_id, job_id, job FROM mod_scaimind_jobs"
                " WHERE (tenant_id, job_id) > (:tenant_id, :job_id)"
                " AND job #> '{training_config,environment}' IS NOT NULL"
                " ORDER BY tenant_id, job_id LIMIT :some FOR UPDATE"
            ),
            {"tenant_id": tenant_id, "job_id": job_id, "some": _SOME},
        ).all()
        if not rows:
            return
        for tenant_id, job_id, job in rows:
            environment = job["training_config"]["environment"] or {}
            shown = {name: shown_value(name, value) for name, value in environment.items()}
            if shown != environment:
                job["training_config"]["environment"] = shown
                db.execute(
                    sa.text(
                        "UPDATE mod_scaimind_jobs SET job = CAST(:job AS json)"
                        " WHERE (tenant_id, job_id) = (:tenant_id, :job_id)"
                    ),
                    {"tenant_id": tenant_id, "job_id": job_id, "job": json.dumps(job)},
                )


def downgrade() -> None:
    """Undo: what is masked stays so, until the job is next seen."""
