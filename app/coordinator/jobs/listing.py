"""Lists of jobs in pages (AIP-132, AIP-158)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from app.coordinator.database.database import Database
from app.coordinator.errors import InvalidArgument
from app.coordinator.jobs.checkpoint_rows import TOLD, count_checkpoints, newest_checkpoints
from app.coordinator.jobs.messages import job_message
from app.coordinator.jobs.model import JobRecord, Kind
from app.coordinator.jobs.rows import record_of
from app.coordinator.jobs.states import Status
from app.coordinator.storage.page_tokens import make_token, read_token
from app.shortening import quoted

#: Columns that a list may be ordered by.
ORDERS: Final = ("created_at", "updated_at", "name", "status", "priority")
#: Bytes in one page, unless its first job alone is larger. The smallest `max_message_bytes` that
#: can be set leaves room for as much again.
PAGE_BYTES: Final = 4 * 1024 * 1024
#: Jobs with one of several labels that are counted to find the rarest of them.
_COMPARED: Final = 200_000
#: Jobs of some statuses up to which they are sorted, where a list is in no index's order.
_SORTED: Final = 1_000


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
class Filters:
    """Conditions, all of which a job meets; what is empty sets none."""

    statuses: Sequence[Status] = ()
    #: Labels that a job has, all of them.
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: Text in its name, whatever its case.
    name: str = ""
    #: Any of these.
    users: Sequence[str] = ()
    #: Microseconds since 1970.
    created_after: int = 0
    kind: Kind | None = None
    #: The job whose retries they are.
    parent: str = ""

    def asked(self) -> list[Any]:
        """What tells two lists apart."""
        return [
            sorted(set(self.statuses)),
            sorted(self.labels.items()),
            self.name.casefold(),
            sorted(set(self.users)),
            self.created_after,
            self.kind,
            # Tokens of lists without one are those of earlier versions.
            *([self.parent] if self.parent else []),
        ]


@dataclass(frozen=True, slots=True)
class JobsPage:
    """A page of a list."""

    jobs: list[JobRecord]
    next_page_token: str
    total_count: int


def list_jobs(
    db: Database,
    tenant_id: str,
    *,
    filters: Filters,
    order: Order,
    page_size: int,
    page_token: str,
) -> JobsPage:
    """A page of the tenant's jobs (AIP-158): of `page_size` jobs, or of fewer large ones.

    Raises InvalidArgument for a foreign token.
    """
    asked = [tenant_id, filters.asked(), order.column, order.descending]
    query = _Query(db, tenant_id, filters, order)
    place: tuple[Any, ...] = ()
    if page_token:
        place = tuple(read_token(page_token, asked, str if order.column == "name" else int, str))
    jobs: list[JobRecord] = []
    size = 0
    token = ""
    found = query.rows(place, page_size + 1)
    # What is rare was looked for among all: it is not counted as well.
    total = query.count() if place or len(found) > page_size else len(found)
    for value, job_id in found:
        row = db.execute("SELECT * FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        job = told_record(db, row)
        size += job_message(job).ByteSize()
        if jobs and (len(jobs) == page_size or size > PAGE_BYTES):
            return JobsPage(jobs, token, total)
        jobs.append(job)
        token = make_token(asked, value, job_id)
    return JobsPage(jobs, "", total)


class _Query:
    """The jobs that pass, found by the table in which there are the fewest others.

    That is the rarest label; else what lists are filtered by, which is in the
    order of the tenant's jobs; else the jobs themselves.
    """

    def __init__(self, db: Database, tenant_id: str, filters: Filters, order: Order) -> None:
        self._db = db
        self._order = order
        self._filters = filters
        self._where: list[str] = []
        self._values: list[Any] = []
        labels = _rarest_first(db, tenant_id, filters.labels)
        searches = bool(filters.name or filters.users or filters.kind or filters.parent)
        needs_jobs = bool(filters.statuses) or order.column != "created_at"
        if labels:
            self._lead, tables = "found", ["job_labels AS found"]
        elif searches:
            self._lead, tables = "search", ["job_search AS search"]
        else:
            self._lead, tables, needs_jobs = "jobs", ["jobs"], False
        self._add(f"{self._lead}.tenant_id = ?", tenant_id)
        if filters.created_after:
            self._add(f"{self._lead}.created_at >= ?", filters.created_after)
        equals = db.dialect.equals
        for at, (key, value) in enumerate(labels):
            if at == 0:
                condition = equals("found.value")
                self._add(f"found.key = ? AND {condition}", key, *_each(condition, value))
            else:
                condition = equals("more.value")
                self._add(
                    # By the index that is in the same order: what is next lies beside it.
                    "EXISTS (SELECT 1 FROM job_labels AS more"
                    f"{db.dialect.indexed_by('job_labels_by_value')}"
                    f" WHERE more.tenant_id = found.tenant_id AND more.key = ? AND {condition}"
                    " AND more.created_at = found.created_at AND more.job_id = found.job_id)",
                    key,
                    *_each(condition, value),
                )
        if searches and labels:
            tables.append("job_search AS search")
            self._add(
                "(search.tenant_id, search.created_at, search.job_id)"
                " = (found.tenant_id, found.created_at, found.job_id)"
            )
        self._add_searches()
        if needs_jobs:
            tables.append("jobs")
            self._add(f"jobs.job_id = {self._lead}.job_id")
        if filters.statuses:
            self._add_any("jobs.status", filters.statuses)
        self._from = db.dialect.in_order.join(tables)
        self._sorted = self._from
        if self._from == "jobs" and filters.statuses and order.column != "created_at":
            # Few are found by their status and sorted; of many, the first are soon there.
            where = f"FROM jobs WHERE {' AND '.join(self._where)} LIMIT ?"
            (count,) = db.execute(
                f"SELECT count(*) FROM (SELECT 1 {where}) AS counted", [*self._values, _SORTED]
            ).fetchone()
            if count < _SORTED:
                self._sorted = f"jobs{db.dialect.indexed_by('jobs_by_status')}"

    def _add_searches(self) -> None:
        filters = self._filters
        if filters.parent:
            # The index has jobs with a parent alone, as this condition says.
            self._add("search.parent_job_id <> '' AND search.parent_job_id = ?", filters.parent)
        if filters.kind is not None:
            self._add("search.kind = ?", filters.kind)
        if filters.users:
            self._add_any("search.user_id", sorted(set(filters.users)))
        if filters.name:
            self._add(self._db.dialect.contains("search.name"), filters.name.casefold())

    def _add(self, condition: str, *values: Any) -> None:
        self._where.append(condition)
        self._values += values

    def _add_any(self, column: str, values: Sequence[Any]) -> None:
        self._add(f"{column} IN ({', '.join('?' * len(values))})", *values)

    def count(self) -> int:
        """How many there are."""
        statement = f"SELECT count(*) FROM {self._from} WHERE {' AND '.join(self._where)}"
        count: int = self._db.execute(statement, self._values).fetchone()[0]
        return count

    def rows(self, behind: Sequence[Any], limit: int) -> list[Any]:
        """Places and ids, in order, behind a place if one is given."""
        column, descending = self._order.column, self._order.descending
        place = f"{self._lead if column == 'created_at' else 'jobs'}.{column}"
        where, values = self._where, self._values
        if behind:
            comparison = "<" if descending else ">"
            where = [*where, f"({place}, {self._lead}.job_id) {comparison} (?, ?)"]
            values = [*values, *behind]
        direction = "DESC" if descending else "ASC"
        rows = self._db.execute(
            f"SELECT {place}, {self._lead}.job_id FROM {self._sorted} WHERE {' AND '.join(where)}"
            f" ORDER BY {place} {direction}, {self._lead}.job_id {direction} LIMIT ?",
            [*values, limit],
        )
        return rows.fetchall()


def _each(condition: str, value: str) -> tuple[str, ...]:
    """A value for each place of a condition."""
    return (value,) * condition.count("?")


def _rarest_first(db: Database, tenant_id: str, labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """Labels by how many of the tenant's jobs have them, as far as that is worth counting."""
    if len(labels) < 2:
        return list(labels.items())

    def count(label: tuple[str, str]) -> int:
        key, value = label
        condition = db.dialect.equals("value")
        found: int = db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM job_labels"
            f" WHERE tenant_id = ? AND key = ? AND {condition} LIMIT ?) AS counted",
            (tenant_id, key, *_each(condition, value), _COMPARED),
        ).fetchone()[0]
        return found

    return sorted(sorted(labels.items()), key=count)


def told_record(db: Database, row: Any) -> JobRecord:
    """The job of a row, with the newest of its checkpoints."""
    newest = newest_checkpoints(db, row["job_id"], limit=TOLD)
    count = len(newest) if len(newest) < TOLD else count_checkpoints(db, row["job_id"])
    return record_of(row, newest, count)
