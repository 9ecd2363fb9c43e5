"""Copies everything that a store has from one database into another, and compares both.

The record of changes begins a new epoch in the other database: those who watch
are told everything once more.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.coordinator.database.database import Database
from app.coordinator.jobs.rows import COLUMNS

#: Rows that are read and written at once.
_BATCH: Final = 500


class NotMoved(Exception):
    """Nothing was copied; the message is one line and says what to do."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table, as both databases have it."""

    name: str
    #: Those by which rows are told apart first.
    key: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in one order."""
        return (*self.key, *self.others)


#: Those that others refer to first.
TABLES: Final = (
    Table("jobs", ("job_id",), tuple(each for each in COLUMNS if each != "job_id")),
    Table("job_labels", ("job_id", "key"), ("value", "tenant_id", "created_at")),
    Table(
        "job_search",
        ("tenant_id", "created_at", "job_id"),
        ("kind", "user_id", "name", "parent_job_id"),
    ),
    Table(
        "checkpoints",
        ("job_id", "name"),
        ("sequence", "step", "size_bytes", "created_at", "identity", "measured"),
    ),
    Table("kept_bytes", ("job_id",), ("directory", "checkpoints")),
    Table("deleted_jobs", ("job_id",), ("tenant_id", "deleted_at")),
    Table("drained_nodes", ("node_id",), ("reason",)),
    Table("idempotency_keys", ("tenant_id", "key"), ("request_digest", "job_id", "created_at")),
    Table("job_changes", ("tenant_id", "version"), ("job_id", "deleted_at")),
    Table("change_versions", ("tenant_id",), ("newest", "forgotten")),
)

#: Told of each batch: the table, how many rows of it were copied, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Moved:
    """What was copied: how many rows of each table."""

    rows: dict[str, int]


def copy_all(source: Database, target: Database, *, progress: Progress) -> Moved:
    """Copy all tables, in one transaction of the target; the source must not change meanwhile.

    Raises NotMoved if the target is not empty, or has other rows than the source
    in the end; then nothing was copied.
    """
    for table in TABLES:
        if target.execute(f"SELECT 1 FROM {table.name} LIMIT 1").fetchone() is not None:
            raise NotMoved(f"the target is not empty: its table {table.name} has rows")
    moved: dict[str, int] = {}
    with target.transaction(durable=True):
        for table in TABLES:
            count = source.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0]
            moved[table.name] = _copy(source, target, table, count, progress)
        for table in TABLES:
            before, after = _digest(source, table), _digest(target, table)
            if before != after:
                raise NotMoved(
                    f"table {table.name}: {before[0]} rows with digest {before[1]} were read, and"
                    f" {after[0]} with digest {after[1]} are in the target"
                )
    return Moved(moved)


def _copy(source: Database, target: Database, table: Table, count: int, progress: Progress) -> int:
    columns = ", ".join(table.columns)
    statement = (
        f"INSERT INTO {table.name} ({columns}) VALUES ({', '.join('?' * len(table.columns))})"
    )
    copied = 0
    for rows in _batches(source, table):
        target.write_each(statement, rows)
        # What was written is sent, instead of being kept until the end.
        target.execute("SELECT 1")
        copied += len(rows)
        progress(table.name, copied, count)
    return copied


def _digest(db: Database, table: Table) -> tuple[int, str]:
    """Return how many rows there are, and a digest of all of them in their order."""
    digest, count = hashlib.sha256(), 0
    for rows in _batches(db, table):
        count += len(rows)
        for row in rows:
            digest.update(repr(row).encode())
    return count, digest.hexdigest()[:16]


def _batches(db: Database, table: Table) -> Iterator[list[tuple[Any, ...]]]:
    """Yield all rows by their key."""
    key = ", ".join(table.key)
    places = ", ".join("?" * len(table.key))
    behind: Sequence[Any] = ()
    while True:
        where = f" WHERE ({key}) > ({places})" if behind else ""
        rows = [
            tuple(map(_plain, row))
            for row in db.execute(
                f"SELECT {', '.join(table.columns)} FROM {table.name}{where}"
                f" ORDER BY {key} LIMIT {_BATCH}",
                behind,
            )
        ]
        if not rows:
            return
        behind = rows[-1][: len(table.key)]
        yield rows


def _plain(value: Any) -> Any:
    """A value as both databases have it: PostgreSQL has no NUL in a text."""
    return value.replace("\0", "") if isinstance(value, str) else value
