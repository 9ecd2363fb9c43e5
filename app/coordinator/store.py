"""What the coordinator must not forget, in SQLite.

Calls block, and are made on the event loop: each is one short transaction or
one query by index of at most a page of rows. The database is in WAL mode with
`synchronous=NORMAL`, so that a commit does not wait for the disk: it outlives
every crash of the coordinator, and after a power cut the database is whole
but may lack the last moments.
"""

import base64
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from generated.mindcoordinator.v1.evaluations_pb2 import SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

from .records import Checkpoint, Demand, Intent, JobRecord, Kind, Progress, Share
from .refusals import InvalidArgument
from .states import Status

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    status INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    queue_name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    queued_at INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    run_started_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    submission BLOB NOT NULL,
    evaluation BLOB,
    -- Everything else, as JSON.
    state TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_creation ON jobs (tenant_id, created_at, job_id);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (tenant_id, status, created_at, job_id);
CREATE INDEX IF NOT EXISTS jobs_unfinished ON jobs (status) WHERE ended_at = 0;
CREATE TABLE IF NOT EXISTS job_labels (
    job_id TEXT NOT NULL REFERENCES jobs,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (job_id, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS drained_nodes (
    node_id TEXT PRIMARY KEY,
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS idempotency_keys (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    request_digest BLOB NOT NULL,
    job_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idempotency_keys_by_age ON idempotency_keys (created_at);
"""

_SCHEMA_VERSION: Final = 1
#: Columns that a list may be ordered by.
ORDERS: Final = ("created_at", "updated_at", "name", "status", "priority")


@dataclass(frozen=True, slots=True)
class Order:
    """How a list is ordered; ties are broken by job id, in the same direction."""

    column: str = "created_at"
    descending: bool = True

    @classmethod
    def parse(cls, text: str) -> "Order":
        """From `field` or `field desc` (AIP-132). Raises InvalidArgument."""
        words = text.split()
        if not words:
            return cls()
        if words[0] not in ORDERS or len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]):
            raise InvalidArgument(
                "order_by",
                f"{text[:64]!r} is not one of {', '.join(ORDERS)}, optionally followed by ' desc'",
            )
        return cls(words[0], words[1:] == ["desc"])


@dataclass(frozen=True, slots=True)
class JobsPage:
    """A page of a list."""

    jobs: list[JobRecord]
    next_page_token: str
    total_count: int


@dataclass(frozen=True, slots=True)
class UsedKey:
    """What an idempotency key was used for."""

    request_digest: bytes
    job_id: str


class Store:
    """The database. Owned by one coordinator at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _SCHEMA_VERSION):
            self._db.close()
            raise ValueError(
                f"the database has schema version {version}; this coordinator needs "
                f"{_SCHEMA_VERSION}"
            )
        self._db.executescript(_SCHEMA)
        self._db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is saved inside is saved, or none of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def save_jobs(self, jobs: Iterable[JobRecord]) -> None:
        """Insert or replace jobs; call inside a transaction."""
        for job in jobs:
            self._db.execute(
                """
                INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (job_id) DO UPDATE SET
                    status = excluded.status, revision = excluded.revision,
                    updated_at = excluded.updated_at, queued_at = excluded.queued_at,
                    started_at = excluded.started_at, run_started_at = excluded.run_started_at,
                    ended_at = excluded.ended_at, state = excluded.state
                """,
                (
                    job.job_id,
                    job.tenant_id,
                    job.user_id,
                    job.name,
                    job.kind,
                    job.status,
                    job.priority,
                    job.queue_name,
                    job.revision,
                    job.created_at,
                    job.updated_at,
                    job.queued_at,
                    job.started_at,
                    job.run_started_at,
                    job.ended_at,
                    job.submission.SerializeToString(),
                    job.evaluation.SerializeToString() if job.evaluation else None,
                    orjson.dumps(_state(job)).decode(),
                ),
            )

    def save_labels(self, job: JobRecord) -> None:
        """Insert the labels of a new job; call inside a transaction."""
        self._db.executemany(
            "INSERT INTO job_labels VALUES (?, ?, ?)",
            [(job.job_id, *label) for label in job.submission.labels.items()],
        )

    def save_drain(self, node_id: str, reason: str | None) -> None:
        """Keep a node drained, or enabled if `reason` is None; call inside a transaction."""
        self._db.execute("DELETE FROM drained_nodes WHERE node_id = ?", (node_id,))
        if reason is not None:
            self._db.execute("INSERT INTO drained_nodes VALUES (?, ?)", (node_id, reason))

    def drained_nodes(self) -> dict[str, str]:
        """Why each drained node was drained."""
        rows = self._db.execute("SELECT node_id, reason FROM drained_nodes")
        return {row["node_id"]: row["reason"] for row in rows}

    def find_key(self, tenant_id: str, key: str, *, since: int) -> UsedKey | None:
        """What `key` was used for at or after `since`."""
        row = self._db.execute(
            "SELECT request_digest, job_id FROM idempotency_keys"
            " WHERE tenant_id = ? AND key = ? AND created_at >= ?",
            (tenant_id, key, since),
        ).fetchone()
        return UsedKey(row["request_digest"], row["job_id"]) if row else None

    def save_key(self, tenant_id: str, key: str, used: UsedKey, *, now: int, since: int) -> None:
        """Keep a key, and forget those older than `since`; call inside a transaction."""
        self._db.execute("DELETE FROM idempotency_keys WHERE created_at < ?", (since,))
        self._db.execute(
            "INSERT INTO idempotency_keys VALUES (?, ?, ?, ?, ?)",
            (tenant_id, key, used.request_digest, used.job_id, now),
        )

    def job(self, tenant_id: str, job_id: str) -> JobRecord | None:
        """A job of the tenant."""
        row = self._db.execute(
            "SELECT * FROM jobs WHERE job_id = ? AND tenant_id = ?", (job_id, tenant_id)
        ).fetchone()
        return _record(row) if row else None

    def unfinished(self) -> list[JobRecord]:
        """The jobs of all tenants that have not ended, the oldest first."""
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE ended_at = 0 ORDER BY created_at, job_id"
        ).fetchall()
        return [_record(row) for row in rows]

    def newest_run_times(self, limit: int) -> list[tuple[str, float]]:
        """Queue and seconds of the newest completed runs, the oldest of them first."""
        rows = self._db.execute(
            "SELECT queue_name, (ended_at - run_started_at) / 1e6 AS seconds FROM jobs"
            " WHERE status = ? AND run_started_at > 0 ORDER BY ended_at DESC LIMIT ?",
            (Status.COMPLETED, limit),
        ).fetchall()
        return [(row["queue_name"], row["seconds"]) for row in reversed(rows)]

    def list_jobs(
        self,
        tenant_id: str,
        *,
        statuses: Sequence[Status],
        labels: Mapping[str, str],
        order: Order,
        page_size: int,
        page_token: str,
    ) -> JobsPage:
        """A page of the tenant's jobs (AIP-158). Raises InvalidArgument for a foreign token."""
        where = ["tenant_id = ?"]
        values: list[Any] = [tenant_id]
        if statuses:
            where.append(f"status IN ({', '.join('?' * len(statuses))})")
            values += statuses
        for label in sorted(labels.items()):
            where.append(
                "EXISTS (SELECT 1 FROM job_labels WHERE job_labels.job_id = jobs.job_id"
                " AND key = ? AND value = ?)"
            )
            values += label
        asked = _digest([*where, *values, order.column, order.descending])
        total = self._db.execute(
            f"SELECT count(*) FROM jobs WHERE {' AND '.join(where)}", values
        ).fetchone()[0]
        if page_token:
            last_value, last_id = _read_token(page_token, asked)
            where.append(f"({order.column}, job_id) {'<' if order.descending else '>'} (?, ?)")
            values += [last_value, last_id]
        direction = "DESC" if order.descending else "ASC"
        rows = self._db.execute(
            f"SELECT * FROM jobs WHERE {' AND '.join(where)}"
            f" ORDER BY {order.column} {direction}, job_id {direction} LIMIT ?",
            [*values, page_size + 1],
        ).fetchall()
        token = ""
        if len(rows) > page_size:
            rows = rows[:page_size]
            token = _make_token(asked, rows[-1][order.column], rows[-1]["job_id"])
        return JobsPage([_record(row) for row in rows], token, total)

    def count_active(self, tenant_id: str) -> dict[Status, int]:
        """How many of the tenant's jobs are in each state that is not an end."""
        rows = self._db.execute(
            "SELECT status, count(*) AS number FROM jobs WHERE tenant_id = ? AND ended_at = 0"
            " GROUP BY status",
            (tenant_id,),
        )
        return {Status(row["status"]): row["number"] for row in rows}


def digest_of(request: Any) -> bytes:
    """What tells two requests apart."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(orjson.dumps(list(values))).hexdigest()[:16]


def _make_token(asked: str, value: Any, job_id: str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([asked, value, job_id])).decode().rstrip("=")


def _read_token(token: str, asked: str) -> tuple[int | str, str]:
    problem = InvalidArgument(
        "page_token", "it is not from a response to this request; start without one"
    )
    try:
        parts = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except ValueError:
        raise problem from None
    match parts:
        case [str(made_for), int(value) | str(value), str(job_id)] if made_for == asked:
            return value, job_id
    raise problem


def _state(job: JobRecord) -> dict[str, Any]:
    return {
        "message": job.message,
        "error_message": job.error_message,
        "demand": job.demand,
        "parent_job_id": job.parent_job_id,
        "run_count": job.run_count,
        "retry_count": job.retry_count,
        "intent": job.intent,
        "intent_reason": job.intent_reason,
        "placement": job.placement,
        "node_ids": job.node_ids,
        "resume_from": job.resume_from,
        "output_path": job.output_path,
        "exit_code": job.exit_code,
        "progress": job.progress,
        "checkpoints": job.checkpoints,
        "not_before": job.not_before,
    }


def _record(row: sqlite3.Row) -> JobRecord:
    state = orjson.loads(row["state"])
    demand = state.pop("demand")
    return JobRecord(
        job_id=row["job_id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        name=row["name"],
        kind=Kind(row["kind"]),
        status=Status(row["status"]),
        priority=row["priority"],
        queue_name=row["queue_name"],
        revision=row["revision"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        run_started_at=row["run_started_at"],
        ended_at=row["ended_at"],
        submission=SubmitJobRequest.FromString(row["submission"]),
        evaluation=SubmitEvaluationRequest.FromString(row["evaluation"])
        if row["evaluation"] is not None
        else None,
        demand=Demand(
            **{
                **demand,
                "node_ids": tuple(demand["node_ids"]),
                "selector": tuple((key, value) for key, value in demand["selector"]),
            }
        ),
        intent=Intent(state.pop("intent")),
        placement=tuple(
            Share(share["node_id"], tuple(share["gpus"]), share["cpus"], share["memory"])
            for share in state.pop("placement")
        ),
        node_ids=tuple(state.pop("node_ids")),
        progress=Progress(**state.pop("progress")),
        checkpoints=tuple(Checkpoint(**item) for item in state.pop("checkpoints")),
        **state,
    )
