"""Unset times are null in cached jobs, as they are from here on in answers.

A replica of an earlier version that still runs can write a copy without them
again; it is replaced when the job is next seen.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SOME = 500
_TIMES = ("created_at", "started_at", "ended_at", "updated_at")


def upgrade() -> None:
    """Apply."""
    db = op.get_bind()
    tenant_id = job_id = ""
    while True:
        rows = db.execute(
            sa.text(
                "SELECT tenant_id, job_id, job FROM mod_scaimind_jobs"
                " WHERE (tenant_id, job_id) > (:tenant_id, :job_id)"
                " ORDER BY tenant_id, job_id LIMIT :some FOR UPDATE"
            ),
            {"tenant_id": tenant_id, "job_id": job_id, "some": _SOME},
        ).all()
        if not rows:
            return
        for tenant_id, job_id, job in rows:
            before = json.dumps(job)
            _complete(job)
            if (after := json.dumps(job)) != before:
                db.execute(
                    sa.text(
                        "UPDATE mod_scaimind_jobs SET job = CAST(:job AS json)"
                        " WHERE (tenant_id, job_id) = (:tenant_id, :job_id)"
                    ),
                    {"tenant_id": tenant_id, "job_id": job_id, "job": after},
                )


def downgrade() -> None:
    """Undo: null stays, which an earlier version reads as unset, too."""


def _complete(job: dict[str, Any]) -> None:
    for name in _TIMES:
        job.setdefault(name, None)
    if job.get("scheduling_config") is not None:
        job["scheduling_config"].setdefault("not_before", None)
    for checkpoint in job.get("checkpoints") or ():
        checkpoint.setdefault("created_at", None)
