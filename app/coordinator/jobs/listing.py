"""Lists of jobs in pages (AIP-132, AIP-158)."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from app.coordinator.errors import InvalidArgument
from app.coordinator.jobs.checkpoint_rows import TOLD, count_checkpoints, newest_checkpoints
from app.coordinator.jobs.messages import job_message
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.rows import record_of
from app.coordinator.jobs.states import Status
from app.coordinator.storage.page_tokens import make_token, read_token
from app.shortening import quoted

#: Columns that a list may be ordered by.
ORDERS: Final = ("created_at", "updated_at", "name", "status", "priority")
#: Bytes in one page, unless its first job alone is larger. The smallest `max_message_bytes` that
#: can be set leaves room for as much again.
PAGE_BYTES: Final = 4 * 1024 * 1024


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
                f"{quoted(text)} is not one of {', '.join(ORDERS)}, optionally followed by ' desc'",
            )
        return cls(words[0], words[1:] == ["desc"])


@dataclass(frozen=True, slots=True)
class JobsPage:
    """A page of a list."""

    jobs: list[JobRecord]
    next_page_token: str
    total_count: int


def list_jobs(
    db: sqlite3.Connection,
    tenant_id: str,
    *,
    statuses: Sequence[Status],
    labels: Mapping[str, str],
    order: Order,
    page_size: int,
    page_token: str,
) -> JobsPage:
    """A page of the tenant's jobs (AIP-158): of `page_size` jobs, or of fewer large ones.

    Raises InvalidArgument for a foreign token.
    """
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
    asked = [*where, *values, order.column, order.descending]
    total = db.execute(f"SELECT count(*) FROM jobs WHERE {' AND '.join(where)}", values).fetchone()[
        0
    ]
    if page_token:
        where.append(f"({order.column}, job_id) {'<' if order.descending else '>'} (?, ?)")
        values += read_token(page_token, asked, str if order.column == "name" else int, str)
    direction = "DESC" if order.descending else "ASC"
    rows = db.execute(
        f"SELECT * FROM jobs WHERE {' AND '.join(where)}"
        f" ORDER BY {order.column} {direction}, job_id {direction} LIMIT ?",
        [*values, page_size + 1],
    )
    jobs: list[JobRecord] = []
    size = 0
    token = ""
    with closing(rows):
        for row in rows:
            job = told_record(db, row)
            size += job_message(job).ByteSize()
            if jobs and (len(jobs) == page_size or size > PAGE_BYTES):
                return JobsPage(jobs, token, total)
            jobs.append(job)
            token = make_token(asked, row[order.column], row["job_id"])
    return JobsPage(jobs, "", total)


def told_record(db: sqlite3.Connection, row: sqlite3.Row) -> JobRecord:
    """The job of a row, with the newest of its checkpoints."""
    newest = newest_checkpoints(db, row["job_id"], limit=TOLD)
    count = len(newest) if len(newest) < TOLD else count_checkpoints(db, row["job_id"])
    return record_of(row, newest, count)
