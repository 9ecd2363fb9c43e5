"""The jobs that wait, in the order of priority and age in which they are told.

A look or a change costs the logarithm of their number, and a few moves of memory.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import QueueOrder, SchedulingRules
from app.coordinator.jobs.states import WAITING, Status
from app.coordinator.scheduling.queues.sorted_blocks import SortedBlocks

#: The priority that the jobs of a queue by age have among those of other queues.
PRIORITY_OF_AGE: Final = 5
#: Queues that have the rules of any in which jobs of a tenant may wait at once.
MOST_NAMES: Final = 256


class Place(NamedTuple):
    """Where a job stands: by priority, then age, behind all others while it waits for a time."""

    pending: bool
    #: The priority, negated: the highest comes first. In a queue by age all have the same.
    urgency: int
    created_at: int
    job_id: str


def place_of(job: JobRecord, rules: SchedulingRules) -> Place:
    """Return where a job stands among those that wait, but for what its tenant holds."""
    by_age = rules.queue(job.queue_name).order is QueueOrder.AGE
    urgency = -PRIORITY_OF_AGE if by_age else -job.priority
    return Place(job.status is Status.PENDING, urgency, job.created_at, job.job_id)


#: The queue of all, of a tenant, of a name, or of both: tenant and name.
_Scope: TypeAlias = tuple[str | None, str | None]
_ALL: Final[_Scope] = (None, None)
_NOBODY: Final[SortedBlocks[Place]] = SortedBlocks()


class WaitingJobs:
    """An index over the jobs that wait. Whoever changes a job takes it out and puts it in again."""

    def __init__(self, jobs: Mapping[str, JobRecord], rules: SchedulingRules) -> None:
        """`jobs` has the newest version of each job that waits, by id."""
        self._jobs = jobs
        self._rules = rules
        self._queues: dict[_Scope, SortedBlocks[Place]] = {}
        #: In how many queues that have the rules of any jobs of a tenant wait.
        self._names: Counter[str] = Counter()
        #: Those that are PENDING, by when they may be placed.
        self._times: list[tuple[int, str]] = []

    def add(self, job: JobRecord) -> None:
        """Put a job in; nothing if it does not wait."""
        if job.status not in WAITING:
            return
        place = self.place_of(job)
        self._count_name(job, 1)
        for scope in _scopes(job):
            queue = self._queues.get(scope)
            if queue is None:
                queue = self._queues[scope] = SortedBlocks()
            queue.add(place)
        if place.pending:
            insort(self._times, (job.not_before, job.job_id))

    def remove(self, job: JobRecord) -> None:
        """Take a job out as it was put in; nothing if it did not wait."""
        if job.status not in WAITING:
            return
        place = self.place_of(job)
        for scope in _scopes(job):
            queue = self._queues[scope]
            queue.remove(place)
            if not len(queue):
                del self._queues[scope]
        self._count_name(job, -1)
        if place.pending:
            _remove(self._times, (job.not_before, job.job_id))

    def place_of(self, job: JobRecord) -> Place:
        """Return where a job stands, or would if it waited."""
        return place_of(job, self._rules)

    def __len__(self) -> int:
        """Count the jobs of all tenants."""
        return len(self._queue(_ALL))

    def __iter__(self) -> Iterator[JobRecord]:
        """All in order; none may come or go meanwhile."""
        return (self._jobs[place.job_id] for place in self._queue(_ALL))

    def first(self, count: int) -> list[JobRecord]:
        """Return the first jobs of all."""
        return list(islice(self, count))

    def rank(self, place: Place, *, queue_name: str | None = None) -> int:
        """Count the jobs of all tenants before a place: in one queue, or in all."""
        return self._queue((None, queue_name)).rank(place)

    def count(self, tenant_id: str, queue_name: str | None = None) -> int:
        """Count a tenant's jobs, in one queue or in all."""
        return len(self._queue((tenant_id, queue_name)))

    def has_room(self, job: JobRecord) -> bool:
        """Whether a new job may wait in the queue that it names: a tenant's jobs wait in MOST_NAMES
        queues at once that have the rules of any. Each of them costs looks."""
        return (
            not self._rules.is_any(job.queue_name)
            or (job.tenant_id, job.queue_name) in self._queues
            or self._names[job.tenant_id] < MOST_NAMES
        )

    def _count_name(self, job: JobRecord, more: int) -> None:
        """Count the job's queue, if there is no other job of its tenant in it."""
        tenant_id, queue_name = job.tenant_id, job.queue_name
        if (tenant_id, queue_name) in self._queues or not self._rules.is_any(queue_name):
            return
        self._names[tenant_id] += more
        if not self._names[tenant_id]:
            del self._names[tenant_id]

    def page(
        self, tenant_id: str, queue_name: str | None, *, behind: Place | None, size: int
    ) -> list[JobRecord]:
        """Return a tenant's first jobs behind a place, in one queue or in all."""
        places = islice(self._queue((tenant_id, queue_name)).behind(behind), size)
        return [self._jobs[place.job_id] for place in places]

    def due(self, now: int) -> list[JobRecord]:
        """Return the PENDING jobs whose time has come, the earliest first."""
        count = bisect_left(self._times, (now + 1, ""))
        return [self._jobs[job_id] for _, job_id in self._times[:count]]

    def next_time(self) -> int | None:
        """Return when the next PENDING job may be placed; None if there is none."""
        return self._times[0][0] if self._times else None

    def _queue(self, scope: _Scope) -> SortedBlocks[Place]:
        return self._queues.get(scope) or _NOBODY

    def validate(self) -> None:
        """Raise AssertionError unless the index is that of the jobs."""
        again = WaitingJobs(self._jobs, self._rules)
        for job in self._jobs.values():
            again.add(job)
        places = {scope: list(queue) for scope, queue in self._queues.items()}
        assert places == {scope: list(queue) for scope, queue in again._queues.items()}
        assert self._times == again._times
        assert self._names == again._names


def _scopes(job: JobRecord) -> tuple[_Scope, ...]:
    tenant_id, queue_name = job.tenant_id, job.queue_name
    return _ALL, (None, queue_name), (tenant_id, None), (tenant_id, queue_name)


def _remove(times: list[tuple[int, str]], time: tuple[int, str]) -> None:
    at = bisect_left(times, time)
    assert times[at] == time
    del times[at]
