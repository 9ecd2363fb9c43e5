"""What the coordinator must not forget, in whichever database it is.

Calls block, and are made on the event loop: each is one short transaction or
one query by index of at most a page of rows. What passes is raised as
sqlite3.OperationalError or StoreUnavailable; where another coordinator may lead
by now, LeadershipLost is.

A new column of jobs: its name goes to `rows.COLUMNS`, its value to `rows.values_of`, how it is
read to `rows.record_of`; if it changes, its name goes to `rows.CHANGING`, too. Then a step at the
end of `steps.store_steps.STEPS` adds it to SQLite, and one at the end of `postgres.steps.STEPS`
to PostgreSQL, each with a default for the rows that are there.
"""

import hashlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from app.coordinator.database.database import Database
from app.coordinator.failures import LeadershipLost, StoreUnavailable
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
from app.coordinator.jobs.rows import CHANGING, COLUMNS, failed_record_of, record_of, values_of
from app.coordinator.jobs.states import RETRYABLE, TERMINAL, Status
from app.coordinator.jobs.store_reader import StoreReader
from app.shortening import shortened

log = structlog.get_logger("scaimind.coordinator")


@dataclass(frozen=True, slots=True)
class UsedKey:
    """What an idempotency key was used for."""

    request_digest: bytes
    job_id: str


def nobody(tenants: frozenset[str]) -> None:
    """Look away."""


_SAVE_JOB: Final = (
    f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    " ON CONFLICT (job_id) DO UPDATE SET "
    + ", ".join(f"{each} = excluded.{each}" for each in CHANGING)
)


class Store(ABC):
    """The database. Owned by one coordinator at a time."""

    def __init__(
        self,
        db: Database,
        *,
        witness: Witness,
        boot: str,
        inode: int,
        committed: Callable[[frozenset[str]], None] = nobody,
    ) -> None:
        """`db` has the newest tables; it and `witness` are the store's from here on.

        `boot` and `inode` are those of `open_record`. `committed` is told of
        each transaction that is stored: the tenants whose jobs it has changed
        or deleted. It must not raise.
        """
        self._committed = committed
        self._changed: set[str] = set()
        #: Changes that the transaction has recorded.
        self._recorded = 0
        self._db = db
        self._witness = witness
        #: Of the record of changes.
        self.epoch = open_record(db, boot=boot, inode=inode, witness=witness)
        self._changes = count_changes(db)

    @abstractmethod
    def reader(self, *, thread_name: str, mapped: int = 0) -> StoreReader:
        """What reads the store in a thread. `mapped`: bytes of a database on this machine that
        are read without copying them."""

    def hurry(self) -> None:
        """From here on the event loop must not be held up: bound what is read and written by
        that. Before, as at the start, all that is unfinished may be read at once."""
        return

    def close(self) -> None:
        """Close the database."""
        # Without the note, the record begins a new epoch at the machine's next start.
        with suppress(sqlite3.Error, StoreUnavailable, LeadershipLost):
            close_record(self._db)
            # It is old where nothing has changed for long.
            self._witness.note(self.epoch, self._changes)
        self._db.close()
        self._witness.close()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All that is saved inside is saved, or none of it; with `durable` before the block ends
        also on the disk, for which the call waits."""
        self._changed.clear()
        self._recorded = 0
        with self._db.transaction(durable=durable):
            yield
        if self._recorded:
            self._changes += self._recorded
            self._witness.note(self.epoch, self._changes)
        self._committed(frozenset(self._changed))

    def save_jobs(self, jobs: Iterable[JobRecord]) -> None:
        """Insert or replace jobs; call inside a transaction."""
        for job in jobs:
            self._db.write(_SAVE_JOB, values_of(job))
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
        self._db.write("DELETE FROM job_labels WHERE job_id = ?", (job.job_id,))
        place = (job.tenant_id, job.created_at)
        self._db.write_each(
            "INSERT INTO job_labels VALUES (?, ?, ?, ?, ?)",
            [(job.job_id, *label, *place) for label in job.submission.labels.items()],
        )
        self._db.write(
            "INSERT INTO job_search"
            " (tenant_id, created_at, job_id, kind, user_id, name, parent_job_id)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant_id, created_at, job_id)"
            " DO UPDATE SET kind = excluded.kind, user_id = excluded.user_id,"
            " name = excluded.name, parent_job_id = excluded.parent_job_id",
            (
                *(*place, job.job_id, job.kind, job.user_id),
                *(job.name.casefold(), job.parent_job_id),
            ),
        )

    def save_submission(self, job: JobRecord) -> None:
        """Replace what a job was submitted with, and its name; call inside a transaction."""
        self._db.write(
            "UPDATE jobs SET name = ?, submission = ? WHERE job_id = ?",
            (job.name, job.submission.SerializeToString(), job.job_id),
        )
        self.save_search(job)

    def save_drain(self, node_id: str, reason: str | None) -> None:
        """Keep a node drained, or enabled if `reason` is None; call inside a transaction."""
        self._db.write("DELETE FROM drained_nodes WHERE node_id = ?", (node_id,))
        if reason is not None:
            self._db.write("INSERT INTO drained_nodes VALUES (?, ?)", (node_id, reason))

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
        self._db.write("DELETE FROM idempotency_keys WHERE created_at < ?", (since,))
        self._db.write(
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
        values = dict(zip(COLUMNS, values_of(job), strict=True))
        columns = ("kind", "status", "revision", "updated_at", "ended_at", "state")
        with self.transaction():
            for column in (*columns, "submission", "evaluation"):
                self._db.write(
                    f"UPDATE jobs SET {column} = ? WHERE job_id = ?", (values[column], job.job_id)
                )
            self._record_change(job)

    def _unfinished_rows(self) -> list[Any]:
        return self._db.execute(
            "SELECT * FROM jobs WHERE ended_at = 0 ORDER BY created_at, job_id"
        ).fetchall()

    def _record_of(self, row: Any) -> JobRecord:
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
            f"SELECT queue_name, ran FROM (SELECT queue_name, ended_at,"
            f" {self._db.dialect.state_number('ran')} AS ran FROM jobs"
            f" WHERE status = ? AND ended_at > 0) AS runs"
            " WHERE ran > 0 ORDER BY ended_at DESC LIMIT ?",
            (Status.COMPLETED, limit),
        ).fetchall()
        return [(row["queue_name"], row["ran"] / 1e6) for row in reversed(rows)]


def digest_of(request: Any) -> bytes:
    """What tells two requests apart."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
