"""Reading the job cache: jobs as they were last seen, and a tenant's summary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Protocol

import orjson

from app.cache import statements
from app.cache.filters import JobFilters
from app.cache.page_tokens import List, Order
from app.cache.write_buffer import ENDS, STATUSES, JsonObject, shown, status_name

#: Jobs that hold GPUs: from SCHEDULING to EXPORTING, but for PAUSED.
_HOLDING = frozenset({3, 4, 5, 6, 8, 9})
#: Jobs that want GPUs: those, and those that wait for their turn.
_WANTING = _HOLDING | {1, 2}
_FAILURES = 10
#: A bucket of run times begins at so many seconds to the power of its number.
_BUCKET = 1.05


class Database(Protocol):
    """What reading needs of the pool."""

    async def read(self, statement: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """Run a query; raises `DatabaseError`."""


@dataclass(frozen=True, slots=True)
class Stale:
    """An answer from the cache."""

    #: For orjson to write.
    data: Any
    #: When the coordinator gave the oldest part of it.
    synced_at: datetime
    #: Seconds since then, by the database's clock.
    age: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A tenant's jobs at a glance."""

    data: JsonObject
    #: When the cache last heard of any of them; None if it never did.
    synced_at: datetime | None


class JobCache:
    """Reads what `JobWriter`, of this and other replicas, keeps. All methods raise `DatabaseError`.

    A job is never shown to another tenant than the one as which it was seen.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def job(self, tenant_id: str, job_id: str) -> Stale | None:
        """Read a job; None if it was never seen."""
        rows = await self._database.read(statements.GET_JOB, (tenant_id, job_id))
        return Stale(_job(rows[0]), *rows[0][-2:]) if rows else None

    async def jobs(
        self,
        tenant_id: str,
        *,
        page_size: int,
        page_token: str,
        order_by: str,
        statuses: Sequence[str] = (),
        label_filter: Mapping[str, str] = MappingProxyType({}),
        name_contains: str = "",
        user_ids: Sequence[str] = (),
        created_after: datetime | None = None,
        kind: str = "",
        parent_job_id: str = "",
    ) -> Stale | None:
        """Read a page of a list, as `ListJobs` gives it; None if nothing of the tenant was seen.

        The list holds the jobs that were seen, and is as old as the oldest
        copy on the page; an empty page is as old as the newest of the tenant's
        jobs. Raises `BadPage`.
        """
        order = Order.parse(order_by)
        filters = JobFilters(
            *(statuses, label_filter, name_contains, user_ids, created_after, kind, parent_job_id)
        )
        wanted = List(tenant_id, filters, order)
        place, after = wanted.read(page_token) if page_token else (None, "")
        passing = filters.parameters()
        if filters.only_statuses:
            statement = statements.list_jobs(
                order.column,
                descending=order.descending,
                filtered=bool(filters.statuses),
                continued=bool(page_token),
            )
        else:
            statement = statements.search_jobs(
                order.column,
                descending=order.descending,
                filters=passing,
                continued=bool(page_token),
            )
        rows = await self._database.read(
            statement,
            {
                "tenant": tenant_id,
                **passing,
                "place": place,
                "job_id": after,
                "rows": page_size + 1,
            },
        )
        total, heard, age = rows[0][:3]
        if heard is None:
            return None
        found = [row[3:] for row in rows if row[4] is not None]
        page = found[:page_size]
        data = {
            "jobs": [_job(row[2:]) for row in page],
            "next_page_token": wanted.token(*page[-1][:2]) if len(found) > len(page) else "",
            "total_count": total,
        }
        oldest = max(page, key=lambda row: row[-1], default=(heard, age))
        return Stale(data, *oldest[-2:])

    async def summary(self, tenant_id: str, *, days: int) -> Summary:
        """Read a tenant's summary, run times of the last so many days (UTC, today included)."""
        [(counts, synced_at, run_times, failures)] = await self._database.read(
            statements.SUMMARY, {"tenant": tenant_id, "failures": _FAILURES, "days": days}
        )
        counts = counts or []
        by_status = dict.fromkeys(STATUSES[1:], 0)
        for status, jobs, _ in counts:
            by_status[str(status_name(status))] = jobs
        data = {
            "jobs": {"total": sum(by_status.values()), "by_status": by_status},
            "gpus": {
                "requested": sum(gpus for status, _, gpus in counts if status in _WANTING),
                "in_use": sum(gpus for status, _, gpus in counts if status in _HOLDING),
            },
            "newest_failures": [_failure(*each) for each in failures or ()],
            "run_times": [_run_times(*each) for each in run_times or ()],
        }
        return Summary(data, synced_at)


def _job(row: Sequence[Any]) -> JsonObject | orjson.Fragment:
    """Put a job together: its copy, and what a feed told later.

    A copy that stands as it is stays text. A page of a hundred decoded jobs is
    so many objects that the garbage collector stops everything now and then.
    """
    text, status, newer, status_at, message, ended_at, *_ = row
    if not newer:
        return orjson.Fragment(text)
    job: JsonObject = orjson.loads(text)
    job["status"] = status_name(status)
    job["message"] = message
    job["updated_at"] = shown(status_at)
    if status in ENDS and ended_at is not None:
        job["ended_at"] = shown(ended_at)
    return job


def _failure(text: str, message: str, ended_at: str | None) -> JsonObject:
    job = orjson.loads(text)
    return {
        "job_id": job["job_id"],
        "name": job["name"],
        "user_id": job["user_id"],
        "message": message,
        "error_message": job["error_message"],
        "ended_at": None if ended_at is None else shown(datetime.fromisoformat(ended_at)),
    }


def _run_times(day: str, jobs: int, *buckets: int) -> JsonObject:
    # The middle of a bucket: no run time in it is further away than 2.5 %.
    seconds = [round(_BUCKET ** (bucket + 0.5), 1) for bucket in buckets]
    names = ("p50_seconds", "p90_seconds", "p99_seconds")
    return {"day": day, "jobs": jobs, **dict(zip(names, seconds, strict=True))}


def as_shown(time: datetime | None) -> str | None:
    """Write a time of the cache's own, to the second."""
    return None if time is None else shown(time.astimezone(UTC).replace(microsecond=0))
