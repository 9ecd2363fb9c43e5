"""Lists of jobs in pages (AIP-132, AIP-158)."""

import base64
import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from .records import JobRecord
from .refusals import InvalidArgument
from .rows import record_of
from .states import Status

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
    total = db.execute(f"SELECT count(*) FROM jobs WHERE {' AND '.join(where)}", values).fetchone()[
        0
    ]
    if page_token:
        last_value, last_id = _read_token(page_token, asked)
        where.append(f"({order.column}, job_id) {'<' if order.descending else '>'} (?, ?)")
        values += [last_value, last_id]
    direction = "DESC" if order.descending else "ASC"
    rows = db.execute(
        f"SELECT * FROM jobs WHERE {' AND '.join(where)}"
        f" ORDER BY {order.column} {direction}, job_id {direction} LIMIT ?",
        [*values, page_size + 1],
    ).fetchall()
    token = ""
    if len(rows) > page_size:
        rows = rows[:page_size]
        token = _make_token(asked, rows[-1][order.column], rows[-1]["job_id"])
    return JobsPage([record_of(row) for row in rows], token, total)


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
