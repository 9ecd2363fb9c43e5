"""What the coordinator must not forget, in SQLite.

Calls block, and are made on the event loop: each is one short transaction or
one query by index of at most a page of rows. The database is in WAL mode with
`synchronous=NORMAL`, so that a commit does not wait for the disk: it outlives
every crash of the coordinator, and after a power cut the database is whole
but may lack the last moments.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from app.coordinator.jobs.changes.record import (
    Reach,
    close_record,
    count_changes,
    open_record,
    reach_of,
    record_change,
    record_deletion,
)
from app.coordinator.jobs.changes.witness import Witness
from app.coordinator.jobs.checkpoint_rows import (
    CheckpointsPage,
    find_checkpoint,
    list_checkpoints,
    newest_checkpoints,
    save_checkpoints,
)
from app.coordinator.jobs.deletion_rows import (
    DeletedJob,
    KeptJob,
    delete_job,
    deleted_jobs,
    forget_deleted,
    kept_bytes,
    may_read_again,
    oldest_kept,
    save_kept_bytes,
)
from app.coordinator.jobs.listing import told_record
from app.coordinator.jobs.model import Checkpoint, JobRecord
from app.coordinator.jobs.rows import failed_record_of, record_of, values_of
from app.coordinator.jobs.states import RETRYABLE, TERMINAL, Status
from app.coordinator.jobs.steps.store_steps import bring_up, lack_of_room
from app.coordinator.storage.process_identity import read_boot_id
from app.shortening import shortened

log = structlog.get_logger("scaimind.coordinator")


@dataclass(frozen=True, slots=True)
class UsedKey:
    """What an idempotency key was used for."""

    request_digest: bytes
    job_id: str


def _nobody(tenants: frozenset[str]) -> None:
    """Look away."""


class Store:
    """The database. Owned by one coordinator at a time."""

    def __init__(
        self, path: Path, *, committed: Callable[[frozenset[str]], None] = _nobody
    ) -> None:
        """Open or make it, see `store_steps`. Raises UnusableStore, sqlite3.Error.

        `committed` is told of each transaction that is stored: the tenants whose
        jobs it has changed or deleted. It must not raise.
        """
        self._committed = committed
        self._changed: set[str] = set()
        #: Changes that the transaction has recorded.
        self._recorded = 0
        self._db = sqlite3.connect(path, isolation_level=None)
        self._witness = Witness(path.with_suffix(".epoch"))
        try:
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA foreign_keys = ON")
            bring_up(self._db, path)
            # What steps have replaced must not stay in the log either.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            #: Of the record of changes.
            self.epoch = open_record(
                self._db, boot=read_boot_id(), inode=path.stat().st_ino, witness=self._witness
            )
            self._changes = count_changes(self._db)
        except BaseException as error:
            self._db.close()
            self._witness.close()
            if isinstance(error, sqlite3.OperationalError):
                # SQLite calls it a "disk I/O error" where not even its own files have room.
                raise lack_of_room(path, error) or error from None
            raise

    def close(self) -> None:
        """Close the database."""
        # Without the note, the record begins a new epoch at the machine's next start.
        with suppress(sqlite3.Error):
            close_record(self._db)
        self._db.close()
        self._witness.close()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All that is saved inside is saved, or none of it; with `durable` before the block ends
        also on the disk, for which the call waits."""
        if durable:
            self._db.execute("PRAGMA synchronous = FULL")
        try:
            with self._begun():
                yield
        finally:
            if durable:
                self._db.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def _begun(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        self._changed.clear()
        self._recorded = 0
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        if self._recorded:
            self._changes += self._recorded
            self._witness.note(self.epoch, self._changes)
        self._committed(frozenset(self._changed))

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
                values_of(job),
            )
            self._record_change(job)

    def reach(self, tenant_id: str) -> Reach:
        """How far the record of a tenant's changes reaches."""
        return reach_of(self._db, tenant_id)

    def _record_change(self, job: JobRecord) -> None:
        record_change(self._db, job.tenant_id, job.job_id)
        self._recorded += 1
        self._changed.add(job.tenant_id)

    def save_search(self, job: JobRecord) -> None:
        """Keep what lists find a job by; call inside a transaction, for a stored job."""
        self._db.execute("DELETE FROM job_labels WHERE job_id = ?", (job.job_id,))
        place = (job.tenant_id, job.created_at)
        self._db.executemany(
            "INSERT INTO job_labels VALUES (?, ?, ?, ?, ?)",
            [(job.job_id, *label, *place) for label in job.submission.labels.items()],
        )
        self._db.execute(
            "INSERT OR REPLACE INTO job_search VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(*place, job.job_id, job.kind, job.user_id),
                *(job.name.casefold(), job.parent_job_id),
            ),
        )

    def save_submission(self, job: JobRecord) -> None:
        """Replace what a job was submitted with, and its name; call inside a transaction."""
        self._db.execute(
            "UPDATE jobs SET name = ?, submission = ? WHERE job_id = ?",
            (job.name, job.submission.SerializeToString(), job.job_id),
        )
        self.save_search(job)

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
        return told_record(self._db, row) if row else None

    def delete_job(self, tenant_id: str, job_id: str, *, now: int) -> bool:
        """Forget a job, see `deletion_rows`, and have those who watch the tenant's jobs learn of
        it; call inside a transaction."""
        deleted = delete_job(self._db, tenant_id, job_id, now=now)
        if deleted:
            record_deletion(self._db, tenant_id, job_id, now=now)
            self._recorded += 1
            self._changed.add(tenant_id)
        return deleted

    def deleted_jobs(self, *, limit: int) -> list[DeletedJob]:
        """Jobs that are no more, and whose files are to go."""
        return deleted_jobs(self._db, limit=limit)

    def forget_deleted(self, job_id: str) -> None:
        """Note that nothing is left of a deleted job."""
        forget_deleted(self._db, job_id)

    def may_read_again(self, tenant_id: str, job_id: str) -> bool:
        """Whether another job has ended that would read this one's files if it were retried."""
        return may_read_again(self._db, tenant_id, job_id)

    def save_kept_bytes(self, job_id: str, directory: int, checkpoints: int) -> None:
        """Keep what a job takes up; call inside a transaction."""
        save_kept_bytes(self._db, job_id, directory, checkpoints)

    def kept_bytes(self) -> tuple[int, int]:
        """What all ended jobs take up that were measured: their directories, their checkpoints."""
        return kept_bytes(self._db)

    def oldest_kept(self, behind: tuple[int, str], *, limit: int) -> list[KeptJob]:
        """Ended jobs by their end, behind the one with this end and id."""
        return oldest_kept(self._db, behind, limit=limit)

    def newest_tenant(self) -> str | None:
        """Whose the job is that was made last; None without a job."""
        row = self._db.execute(
            "SELECT tenant_id FROM jobs ORDER BY created_at DESC, job_id DESC LIMIT 1"
        ).fetchone()
        return row["tenant_id"] if row else None

    def newest_creation(self) -> int:
        """When the newest job was made, in microseconds since 1970; 0 without a job."""
        row = self._db.execute("SELECT max(created_at) AS newest FROM jobs").fetchone()
        return row["newest"] or 0

    def may_run_again(self, job_id: str) -> bool:
        """Whether a job, of whatever tenant, is there and runs, will run, or can be retried."""
        row = self._db.execute("SELECT status FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return row is not None and row["status"] not in TERMINAL - RETRYABLE

    def unfinished(self) -> list[JobRecord]:
        """The jobs of all tenants that have not ended, the oldest first; with all their
        checkpoints."""
        return [self._record_of(row) for row in self._unfinished_rows()]

    def fail_unreadable(self, reason: str, now: int) -> list[str]:
        """End the unfinished jobs that cannot be read: one must not keep all others from going on.

        Returns their ids. What they were is in the log.
        """
        failed = []
        for row in self._unfinished_rows():
            try:
                self._record_of(row)
            except Exception as error:  # whatever is in the row
                log.error(
                    "job_not_readable",
                    job_id=row["job_id"],
                    row=shortened(repr(tuple(row)), 10_000),
                )
                log.error("job_not_readable", job_id=row["job_id"], exc_info=error)
                self._replace(failed_record_of(row, reason, now))
                failed.append(row["job_id"])
        return failed

    def _replace(self, job: JobRecord) -> None:
        """Replace all of a job's row that may change, and what it was submitted with."""
        names = [row["name"] for row in self._db.execute("PRAGMA table_info (jobs)")]
        values = dict(zip(names, values_of(job), strict=True))
        columns = ("kind", "status", "revision", "updated_at", "ended_at", "state")
        with self.transaction():
            for column in (*columns, "submission", "evaluation"):
                self._db.execute(
                    f"UPDATE jobs SET {column} = ? WHERE job_id = ?", (values[column], job.job_id)
                )
            self._record_change(job)

    def _unfinished_rows(self) -> list[sqlite3.Row]:
        return self._db.execute(
            "SELECT * FROM jobs WHERE ended_at = 0 ORDER BY created_at, job_id"
        ).fetchall()

    def _record_of(self, row: sqlite3.Row) -> JobRecord:
        checkpoints = newest_checkpoints(self._db, row["job_id"])
        return record_of(row, checkpoints, len(checkpoints))

    def save_checkpoints(self, before: JobRecord | None, job: JobRecord) -> None:
        """Keep what has changed of a job's checkpoints; call inside a transaction.

        `before` is the job as it was stored, None if it is new.
        """
        save_checkpoints(
            self._db, job.job_id, before.checkpoints if before else (), job.checkpoints
        )

    def checkpoint(self, job_id: str, checkpoint_id: str) -> Checkpoint | None:
        """A checkpoint of a job, however old."""
        return find_checkpoint(self._db, job_id, checkpoint_id)

    def list_checkpoints(self, job_id: str, *, page_size: int, page_token: str) -> CheckpointsPage:
        """A page of a job's checkpoints (AIP-158), the newest first. Raises InvalidArgument for a
        foreign token."""
        return list_checkpoints(self._db, job_id, page_size=page_size, page_token=page_token)

    def newest_run_times(self, limit: int) -> list[tuple[str, float]]:
        """Queue and seconds of the newest completed runs, the oldest of them first."""
        rows = self._db.execute(
            "SELECT queue_name, json_extract(state, '$.ran') / 1e6 AS seconds FROM jobs"
            " WHERE status = ? AND seconds > 0 ORDER BY ended_at DESC LIMIT ?",
            (Status.COMPLETED, limit),
        ).fetchall()
        return [(row["queue_name"], row["seconds"]) for row in reversed(rows)]


def digest_of(request: Any) -> bytes:
    """What tells two requests apart."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
