"""The steps that bring a store from each version to the next.

A store's version is the number of steps that it has taken; SQLite keeps it as
`user_version`. A change of the tables, or of what a column holds, is a new
step at the end; a step that was released is never changed. All outstanding
steps are one transaction, and a store that holds something is copied beside
itself first.
"""

import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from app.coordinator.jobs.steps.changes import record_changes
from app.coordinator.jobs.steps.checkpoints import move_checkpoints_apart
from app.coordinator.jobs.steps.deletions import keep_deletions
from app.coordinator.jobs.steps.demands import ask_for_no_cores
from app.coordinator.jobs.steps.filters import index_filters
from app.coordinator.jobs.steps.orders import index_orders
from app.coordinator.jobs.steps.parents import index_parents
from app.coordinator.jobs.steps.run_times import keep_run_times
from app.coordinator.jobs.steps.secrets import mask_ended, move_secrets_apart

#: Copies of former versions that are kept.
KEPT_COPIES: Final = 2
_MIB: Final = 1024 * 1024
#: Bytes that must be free beside the copy, for what the steps write.
_MARGIN: Final = 8 * _MIB

#: Takes one step on an open connection, within a transaction: no `executescript`, which commits.
StoreStep = Callable[[sqlite3.Connection], None]


class UnusableStore(Exception):
    """The store cannot be opened; the message is one line and says what to do."""


def _first_tables(db: sqlite3.Connection) -> None:
    for statement in (
        """
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
        ) STRICT
        """,
        "CREATE INDEX IF NOT EXISTS jobs_by_creation ON jobs (tenant_id, created_at, job_id)",
        "CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (tenant_id, status, created_at, job_id)",
        "CREATE INDEX IF NOT EXISTS jobs_unfinished ON jobs (status) WHERE ended_at = 0",
        """
        CREATE TABLE IF NOT EXISTS job_labels (
            job_id TEXT NOT NULL REFERENCES jobs,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (job_id, key)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE IF NOT EXISTS drained_nodes (
            node_id TEXT PRIMARY KEY,
            reason TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE IF NOT EXISTS idempotency_keys (
            tenant_id TEXT NOT NULL,
            key TEXT NOT NULL,
            request_digest BLOB NOT NULL,
            job_id TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            PRIMARY KEY (tenant_id, key)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX IF NOT EXISTS idempotency_keys_by_age ON idempotency_keys (created_at)",
    ):
        db.execute(statement)


def _secrets_apart(db: sqlite3.Connection) -> None:
    try:
        move_secrets_apart(db)
    except OSError as error:
        raise UnusableStore(
            f"the jobs' credentials could not be moved out of the store: {error}"
        ) from None


def _programs_are_kept(_: sqlite3.Connection) -> None:
    """Jobs have a `program` in their state from here on. Those that are there have none, and an
    earlier coordinator could not read a row with one."""


#: The step at place n makes version n + 1. Tables are made only if they are missing in the first
#: one alone: the coordinators that had no steps could be killed between its tables and its version.
STEPS: Final[tuple[StoreStep, ...]] = (
    _first_tables,
    _secrets_apart,
    move_checkpoints_apart,
    ask_for_no_cores,
    keep_run_times,
    _programs_are_kept,
    keep_deletions,
    record_changes,
    index_filters,
    index_parents,
    index_orders,
)


def bring_up(db: sqlite3.Connection, path: Path, steps: Sequence[StoreStep] = STEPS) -> None:
    """Take the outstanding steps: all of them, or none.

    `db` is the store at `path`, in autocommit mode. Raises UnusableStore if
    the store is newer than `steps`, or if the disk has no room for its copy;
    sqlite3.Error as SQLite does.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(steps):
        raise UnusableStore(
            f"{path.name} has version {version}, and this coordinator can read up to version"
            f" {len(steps)}; start the newer coordinator again, or put a copy of the store from"
            f" before its update ({path.name}.v<version>) in its place"
        )
    if version == len(steps):
        return
    if version:
        _copy(db, path, version)
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in steps[version:]:
            step(db)
        db.execute(f"PRAGMA user_version = {len(steps)}")
        db.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled it back already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    _forget_copies(path)


def _copy(db: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the store to `<path>.v<version>`: it is there as a whole or not at all.

    The copy has no credentials of jobs that cannot run again.
    """
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    needed = pages * db.execute("PRAGMA page_size").fetchone()[0] + _MARGIN
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise UnusableStore(
            f"{path.name} has to be copied before its update to a newer version, which needs"
            f" {_in_mib(needed)} MiB on the disk; {free // _MIB} MiB are free. Free some space,"
            " then start again"
        )
    fresh = path.with_name(f"{path.name}.copying")
    for left in (fresh, *_beside(fresh)):
        left.unlink(missing_ok=True)
    try:
        # It holds what all tenants submitted.
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(fresh)) as copy:
            db.backup(copy)
            if version <= STEPS.index(_secrets_apart):
                mask_ended(copy)
                copy.commit()
        _sync(fresh)
        fresh.replace(path.with_name(f"{path.name}.v{version}"))
        _sync(path.parent)
    except OSError as error:
        raise UnusableStore(f"{path.name} could not be copied: {error.strerror}") from None
    finally:
        # A file that is left does no harm: the next start removes it.
        for left in (fresh, *_beside(fresh)):
            with suppress(OSError):
                left.unlink(missing_ok=True)


def lack_of_room(path: Path, error: sqlite3.Error) -> UnusableStore | None:
    """What to say of SQLite's error if a full disk brought it about; None for another one."""
    free = shutil.disk_usage(path.parent).free
    if error.sqlite_errorcode != sqlite3.SQLITE_FULL and free >= _MARGIN:
        return None
    return UnusableStore(
        f"{path.name} could not be opened ({error}); {free // _MIB} MiB are free on its disk."
        " Free some space, then start again"
    )


def _beside(path: Path) -> list[Path]:
    """What SQLite has beside a database that is written."""
    return [path.with_name(f"{path.name}{end}") for end in ("-journal", "-wal", "-shm")]


def _forget_copies(path: Path) -> None:
    """Remove all copies but those of the newest versions."""
    copies = {}
    for entry in path.parent.iterdir():
        if found := re.fullmatch(re.escape(path.name) + r"\.v(\d{1,9})", entry.name):
            copies[int(found[1])] = entry
    for version in sorted(copies)[:-KEPT_COPIES]:
        copies[version].unlink(missing_ok=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _in_mib(size: int) -> int:
    return -(-size // _MIB)
