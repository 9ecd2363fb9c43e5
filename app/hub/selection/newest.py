"""Jobs by their age: which of them are the newest, where a stream cannot tell of all."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Final, TypeAlias

from app.hub.selection.states import JobState

#: When a job was created, and its id; of two jobs the greater is the newer.
Age: TypeAlias = tuple[float, str]

#: Before every job.
BEGINNING: Final[Age] = (float("-inf"), "")
#: Behind every job.
END: Final[Age] = (float("inf"), "")


def age_of(job: JobState) -> Age:
    """Return what orders a job among others."""
    return job.created_at, job.job_id


class Newest:
    """The ages of jobs, and the edge from which on there are at most `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._ages: list[Age] = []

    def replace(self, ages: Sequence[Age]) -> None:
        """Hold these ages instead, which may be in any order."""
        self._ages = sorted(ages)

    def add(self, age: Age) -> None:
        """Add the age of a job that is not there."""
        insort(self._ages, age)

    def remove(self, age: Age) -> None:
        """Take out the age of a job that is there."""
        del self._ages[bisect_left(self._ages, age)]

    @property
    def edge(self) -> Age:
        """Return the oldest age of the newest `most`; BEGINNING if there are no others."""
        over = len(self._ages) - self._most
        return self._ages[over] if over > 0 else BEGINNING

    def between(self, first: Age, end: Age) -> list[str]:
        """Return the jobs from one age on and before another, the oldest first."""
        start, stop = bisect_left(self._ages, first), bisect_left(self._ages, end)
        return [job_id for _, job_id in self._ages[start:stop]]

    def last(self, count: int) -> list[str]:
        """Return the newest jobs, at most `count` and `most`, the newest first."""
        chosen = self._ages[-min(count, self._most) :] if count else []
        return [job_id for _, job_id in reversed(chosen)]
