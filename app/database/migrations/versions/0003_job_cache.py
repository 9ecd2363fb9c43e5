"""The job cache: what the gateway last saw of each job, and tallies that answer at once.

Two tallies are kept by triggers, in the transaction that changes the jobs, so
that no read has to count a tenant's jobs: how many there are in each status,
and how long completed runs took, by day and by buckets 5 % wide.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JOBS = "mod_scaimind_jobs"
COUNTS = "mod_scaimind_job_counts"
RUN_TIMES = "mod_scaimind_job_run_times"

COMPLETED = 10
FAILED = 11

#: What happened to jobs, from the transition tables of each kind of trigger.
CHANGES = {
    "INSERT": "SELECT 1 AS sign, come.* FROM come",
    "UPDATE": "SELECT 1 AS sign, come.* FROM come UNION ALL SELECT -1, gone.* FROM gone",
    "DELETE": "SELECT -1 AS sign, gone.* FROM gone",
}
TRANSITIONS = {
    "INSERT": "NEW TABLE AS come",
    "UPDATE": "OLD TABLE AS gone NEW TABLE AS come",
    "DELETE": "OLD TABLE AS gone",
}


def upgrade() -> None:
    """Apply."""
    op.create_table(
        JOBS,
        _text("tenant_id"),
        _text("job_id"),
        sa.Column(
            "revision", sa.BigInteger, nullable=False, comment="of the copy; 0 if not of the whole"
        ),
        _time("updated_at", comment="of the copy, by the coordinator's clock"),
        sa.Column("status", sa.Integer, nullable=False, comment="number in the contract"),
        _time("status_at", comment="since when the status is known to hold, by that clock"),
        sa.Column("message", sa.Text, nullable=False),
        _text("name"),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("gpus", sa.Integer, nullable=False, comment="asked for"),
        _time("created_at"),
        _time("started_at", nullable=True),
        _time("ended_at", nullable=True),
        sa.Column("job", sa.JSON, nullable=False, comment="the copy, as the API shows it"),
        _time("synced_at", comment="when the coordinator gave the copy, by this clock"),
        sa.Column(
            "synced_on",
            sa.Date,
            sa.Computed("(synced_at AT TIME ZONE 'UTC')::date", persisted=True),
            comment="changes once a day, so that its index does not see every refresh",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "job_id"),
        # Room for refreshes beside the row: they touch no indexed column.
        postgresql_with={"fillfactor": "85", "autovacuum_vacuum_scale_factor": "0.05"},
    )
    # A list is merged from one range of these for each status that it shows.
    for column in ("created_at", "updated_at", "name", "priority"):
        op.create_index(f"{JOBS}_{column}_idx", JOBS, ["tenant_id", "status", column, "job_id"])
    op.create_index(f"{JOBS}_status_idx", JOBS, ["tenant_id", "status", "job_id"])
    op.create_index(
        f"{JOBS}_failures_idx",
        JOBS,
        ["tenant_id", sa.text("ended_at DESC NULLS LAST"), sa.text("job_id DESC")],
        postgresql_where=sa.text(f"status = {FAILED}"),
    )
    op.create_index(f"{JOBS}_synced_on_idx", JOBS, ["synced_on"])
    op.create_table(
        COUNTS,
        _text("tenant_id"),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("jobs", sa.BigInteger, nullable=False),
        sa.Column("gpus", sa.BigInteger, nullable=False),
        _time("synced_at", nullable=True, comment="the newest of its jobs, ever"),
        sa.PrimaryKeyConstraint("tenant_id", "status"),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        RUN_TIMES,
        _text("tenant_id"),
        sa.Column("day", sa.Date, nullable=False, comment="on which the runs ended, UTC"),
        sa.Column("bucket", sa.Integer, nullable=False, comment="1.05^bucket seconds and more"),
        sa.Column("jobs", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "day", "bucket"),
        postgresql_with={"fillfactor": "50"},
    )
    for event, changes in CHANGES.items():
        _trigger(event, _tally(changes), f"REFERENCING {TRANSITIONS[event]}")
    _trigger("TRUNCATE", f"TRUNCATE {COUNTS}, {RUN_TIMES};")


def downgrade() -> None:
    """Undo."""
    for table in (JOBS, COUNTS, RUN_TIMES):
        op.drop_table(table)
    for event in (*CHANGES, "TRUNCATE"):
        op.execute(f"DROP FUNCTION {_function(event)}()")


def _text(name: str) -> "sa.Column[str]":
    """An id or a name: compared by its bytes, like the coordinator does."""
    return sa.Column(name, sa.Text(collation="C"), nullable=False)


def _time(name: str, *, nullable: bool = False, comment: str | None = None) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, comment=comment)


def _function(event: str) -> str:
    return f"{JOBS}_tally_{event.lower()}"


def _trigger(event: str, body: str, transitions: str = "") -> None:
    op.execute(
        f"CREATE FUNCTION {_function(event)}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {body} RETURN NULL; END $$"
    )
    op.execute(
        f"CREATE TRIGGER tally_{event.lower()} AFTER {event} ON {JOBS} {transitions} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {_function(event)}()"
    )


def _tally(changes: str) -> str:
    # In the order of the keys, so that statements that run at once do not lock crosswise.
    return f"""
        INSERT INTO {COUNTS} AS known (tenant_id, status, jobs, gpus, synced_at)
        SELECT tenant_id, status, sum(sign), sum(sign * gpus::bigint),
               max(synced_at) FILTER (WHERE sign > 0)
        FROM ({changes}) AS change
        GROUP BY tenant_id, status
        ORDER BY tenant_id, status
        ON CONFLICT (tenant_id, status) DO UPDATE SET
            jobs = known.jobs + excluded.jobs,
            gpus = known.gpus + excluded.gpus,
            synced_at = greatest(known.synced_at, excluded.synced_at);

        INSERT INTO {RUN_TIMES} AS known (tenant_id, day, bucket, jobs)
        SELECT tenant_id, (ended_at AT TIME ZONE 'UTC')::date,
               floor(ln(greatest(extract(epoch FROM ended_at - started_at), 1)::float8)
                     / ln(1.05::float8)),
               sum(sign)
        FROM ({changes}) AS change
        WHERE status = {COMPLETED} AND started_at IS NOT NULL AND ended_at IS NOT NULL
        GROUP BY 1, 2, 3
        HAVING sum(sign) <> 0
        ORDER BY 1, 2, 3
        ON CONFLICT (tenant_id, day, bucket) DO UPDATE SET jobs = known.jobs + excluded.jobs;
    """
