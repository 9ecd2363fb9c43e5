"""States and batches for the tests of selections."""

from typing import Any

from app.hub.selection.states import JobChange, JobState, StatesBatch, StatesStart


def state(job_id: str, status: str = "TRAINING", **values: Any) -> JobState:
    """A job's state; created in the order of ids unless it is told otherwise."""
    told: dict[str, Any] = {
        "user_id": "ann",
        "labels": {},
        "created_at": float(sum(map(ord, job_id))),
        "ended_at": None,
        "data": f'{{"job_id":"{job_id}","status":"{status}"}}'.encode(),
        **values,
    }
    return JobState(job_id=job_id, status=status, **told)


def change(version: int, job_id: str, status: str = "TRAINING", **values: Any) -> JobChange:
    """A change to that status."""
    return JobChange(version, job_id, state(job_id, status, **values))


def gone(version: int, job_id: str) -> JobChange:
    """A deletion."""
    return JobChange(version, job_id, None)


def whole(*changes: JobChange, epoch: str = "s1", synced: int | None = None) -> StatesBatch:
    """A whole state in one message."""
    last = max((each.version for each in changes), default=0)
    return StatesBatch(
        start=StatesStart(epoch, reset=True),
        changes=changes,
        synced=last if synced is None else synced,
    )
