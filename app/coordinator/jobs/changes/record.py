"""The record of what has changed of each tenant's jobs, by version, as rows of the database.

Every change of a job gets the tenant's next version. A job has one row, with
the version of its newest change: whoever has seen everything up to a version
reads the rows behind it, in their order, and has seen everything again. What
changes meanwhile moves to the end. So the record reaches back without limit
for jobs that are there, and takes no more room than they do. The row of a
deleted job stays for a while, and so the record reaches back to any version of
that time.

A version counts within an epoch. The epoch changes where versions that
watchers have seen may be missing: after a power cut, which may cost the
database its last moments, in a copy of the database's file, where an older
one was put back, and after more than a quarter of an hour without a coordinator
(`witness`).
"""

from dataclasses import dataclass
from secrets import token_hex
from typing import Final

from app.coordinator.database.database import Database
from app.coordinator.jobs.changes.witness import Witness

#: Deletions stay for so many of the tenant's changes, and for so many microseconds.
KEPT_CHANGES: Final = 100_000
KEPT_FOR: Final = 3600 * 1_000_000
#: Deletions that are forgotten at most when another one is recorded.
_FORGOTTEN_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Reach:
    """Which versions can be gone on behind: from `forgotten` to `newest`."""

    newest: int
    forgotten: int


def open_record(db: Database, *, boot: str, inode: int, witness: Witness) -> str:
    """Return the record's epoch: the one of before, unless something may have been lost.

    `boot` identifies this start of the machine, `inode` the database's file, of
    which `witness` is the note. Raises sqlite3.Error.
    """
    row = db.execute("SELECT epoch, boot, inode, closed FROM change_record").fetchone()
    # A kill loses nothing that was committed; the machine's end may. Another file may be a copy.
    known = row is not None and row["inode"] == inode and (row["closed"] or row["boot"] == boot)
    changes = count_changes(db)
    if known:
        known = witness.confirms(row["epoch"], changes)
    epoch: str = row["epoch"] if known else token_hex(8)
    with db.transaction():
        db.write("DELETE FROM change_record")
        db.write("INSERT INTO change_record VALUES (?, ?, ?, 0)", (epoch, boot, inode))
    witness.note(epoch, changes)
    return epoch


def count_changes(db: Database) -> int:
    """Return how many changes were ever recorded, of all tenants together."""
    count: int = db.execute(
        "SELECT CAST(coalesce(sum(newest), 0) AS BIGINT) FROM change_versions"
    ).fetchone()[0]
    return count


def close_record(db: Database) -> None:
    """Note that everything is stored: what is written later is lost together with this note."""
    with db.transaction():
        db.write("UPDATE change_record SET closed = 1")


def record_change(db: Database, tenant_id: str, job_id: str, *, deleted_at: int = 0) -> None:
    """Record that a job has changed; call inside a transaction."""
    # Nothing is read: such a transaction is one message to a server.
    db.write(
        "INSERT INTO change_versions VALUES (?, 1, 0) ON CONFLICT (tenant_id)"
        " DO UPDATE SET newest = change_versions.newest + 1",
        (tenant_id,),
    )
    db.write(
        "INSERT INTO job_changes SELECT tenant_id, newest, ?, ? FROM change_versions"
        " WHERE tenant_id = ? ON CONFLICT (job_id)"
        " DO UPDATE SET version = excluded.version, deleted_at = excluded.deleted_at",
        (job_id, deleted_at, tenant_id),
    )


def record_deletion(db: Database, tenant_id: str, job_id: str, *, now: int) -> None:
    """Record that a job was deleted, and forget old deletions; call inside a transaction.

    `now` is in microseconds since 1970. A clock that is set forward makes the
    record shorter than an hour, which is told to whoever comes back, but never
    shorter than KEPT_CHANGES.
    """
    record_change(db, tenant_id, job_id, deleted_at=max(now, 1))
    newest = reach_of(db, tenant_id).newest
    old = db.execute(
        "SELECT version FROM job_changes WHERE tenant_id = ? AND version <= ?"
        " AND deleted_at > 0 AND deleted_at <= ? ORDER BY version LIMIT ?",
        (tenant_id, newest - KEPT_CHANGES, now - KEPT_FOR, _FORGOTTEN_AT_ONCE),
    ).fetchall()
    if not old:
        return
    versions = [(tenant_id, row["version"]) for row in old]
    db.write_each("DELETE FROM job_changes WHERE tenant_id = ? AND version = ?", versions)
    # The clock may have been set: a deletion may go later than a newer one.
    db.write(
        "UPDATE change_versions SET forgotten = ? WHERE tenant_id = ? AND forgotten < ?",
        (old[-1]["version"], tenant_id, old[-1]["version"]),
    )


def reach_of(db: Database, tenant_id: str) -> Reach:
    """How far a tenant's record reaches."""
    row = db.execute(
        "SELECT newest, forgotten FROM change_versions WHERE tenant_id = ?", (tenant_id,)
    ).fetchone()
    return Reach(row["newest"], row["forgotten"]) if row else Reach(0, 0)
