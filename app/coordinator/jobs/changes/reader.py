"""Reads the record of changes, page by page, without holding up the event loop."""

from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from app.coordinator.database.database import Database
from app.coordinator.jobs.changes.record import Reach, reach_of
from app.coordinator.jobs.messages import progress_message, status_message, time_message
from app.coordinator.jobs.model import Progress
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.store import Store
from generated.mindcoordinator.v1.watch_jobs_pb2 import JobChange, JobState

#: Most changes and bytes of a page, of at least one change.
PAGE_CHANGES: Final = 500
PAGE_BYTES: Final = 256 * 1024

log = structlog.get_logger("scaimind.coordinator")


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """What has changed behind a version."""

    #: By version.
    changes: list[JobChange]
    #: Everything up to here has been read.
    last: int
    #: There was nothing behind `last`.
    complete: bool
    reach: Reach


class ChangeReader:
    """Reads with a connection and in a thread of its own, for all who watch.

    It sees what is committed. Nothing is open or running before the first page.
    """

    def __init__(self, store: Store) -> None:
        self._connection = store.reader(thread_name="job changes")

    async def page(self, tenant_id: str, after: int, *, deletions_after: int = 0) -> ChangesPage:
        """Return what has changed behind `after`, without deletions up to `deletions_after`.

        Raises sqlite3.Error, StoreUnavailable.
        """
        return await self._connection.run(lambda db: _page(db, tenant_id, after, deletions_after))

    def close(self) -> None:
        """Wait for the page that is being read, and close the connection; before the store."""
        self._connection.close()


def _page(db: Database, tenant_id: str, after: int, deletions_after: int) -> ChangesPage:
    changes: list[JobChange] = []
    last, count, size, complete = after, 0, 0, True
    rows = db.execute(
        """
        SELECT version, job_changes.job_id, deleted_at, user_id, name, status, created_at,
            updated_at, ended_at, revision, state
        FROM job_changes LEFT JOIN jobs ON jobs.job_id = job_changes.job_id
        WHERE job_changes.tenant_id = ? AND version > ? ORDER BY version LIMIT ?
        """,
        (tenant_id, after, PAGE_CHANGES + 1),
    )
    for row in rows:
        if count == PAGE_CHANGES or size >= PAGE_BYTES:
            complete = False
            break
        last, count = row["version"], count + 1
        if row["deleted_at"] and last <= deletions_after:
            continue
        change = _change(db, row)
        size += change.ByteSize()
        changes.append(change)
    return ChangesPage(changes, last, complete, reach_of(db, tenant_id))


def _change(db: Database, row: Any) -> JobChange:
    if row["status"] is None:
        return JobChange(version=row["version"], deleted_job_id=row["job_id"])
    labels = db.execute("SELECT key, value FROM job_labels WHERE job_id = ?", (row["job_id"],))
    state = JobState(
        job_id=row["job_id"],
        user_id=row["user_id"],
        name=row["name"],
        labels=dict(map(tuple, labels)),
        created_at=time_message(row["created_at"]),
        updated_at=time_message(row["updated_at"]),
        revision=row["revision"],
    )
    if row["ended_at"]:
        state.ended_at.CopyFrom(time_message(row["ended_at"]))
    try:
        told = orjson.loads(row["state"])
        state.status = status_message(Status(row["status"]))
        state.message = told["message"]
        state.progress.CopyFrom(progress_message(Progress.stored(told["progress"])))
    except (ValueError, TypeError, KeyError) as error:  # one row must not end the stream of all
        log.error("job_not_readable", job_id=row["job_id"], reason=str(error))
    return JobChange(version=row["version"], job=state)
