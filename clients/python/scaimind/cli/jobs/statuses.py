"""A job's states, and what its end is as an exit status."""

from collections.abc import Iterable
from typing import Final

STATUSES: Final = (
    "PENDING", "QUEUED", "SCHEDULING", "PREPARING", "TRAINING", "CHECKPOINTING", "PAUSED",
    "EVALUATING", "EXPORTING", "COMPLETED", "FAILED", "CANCELLED", "PREEMPTED",
)  # fmt: skip
BY_STATUS: Final = {"COMPLETED": 0, "FAILED": 1, "CANCELLED": 3, "PREEMPTED": 4}
#: Of several jobs, the first of these that occurs.
_ORDER: Final = (1, 4, 3)


def exit_status(statuses: Iterable[str]) -> int:
    """Return the exit status of jobs that have ended."""
    seen = {BY_STATUS.get(status, 1) for status in statuses}
    return next((status for status in _ORDER if status in seen), 0)
