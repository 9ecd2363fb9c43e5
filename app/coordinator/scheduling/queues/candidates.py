"""The queued jobs in the order in which they are looked at. A look or a change costs the logarithm
of their number, and a few moves of memory."""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import add
from typing import Any, Final, NamedTuple, TypeAlias

from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.queue_rules import Account, QueueOrder, SchedulingRules
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.queues.usage import Usage
from app.coordinator.scheduling.queues.waiting import Place, place_of

#: Jobs of similar needs, which are looked at up to a number of different requests: those without
#: cores and GPUs, those with cores alone, and those with GPUs by the power of two of their number.
Lane: TypeAlias = int
IDLE: Final[Lane] = 0
CORES: Final[Lane] = 1
_MOST_GPU_LANES: Final = 8
_NOTHING: Final = (0.0, 0.0, 0.0)


def lane_of(resource_request: ResourceRequest) -> Lane:
    """The lane of the jobs that ask for this."""
    if resource_request.gpus:
        return CORES + min(resource_request.gpus.bit_length(), _MOST_GPU_LANES)
    return CORES if resource_request.cpus else IDLE


def has_gpus(lane: Lane) -> bool:
    """Whether the jobs of a lane ask for GPUs."""
    return lane > CORES


class Alike(NamedTuple):
    """What jobs have in common of which, while one finds no room, none does that comes later."""

    account: Account
    resource_request: ResourceRequest
    max_runtime: int


class Front(NamedTuple):
    """Whose turn comes first: by priority, then what the tenant holds where that counts, then
    age."""

    urgency: int
    used: tuple[float, float, float]
    created_at: int
    job_id: str
    account: Account


class Candidates:
    """An index over the QUEUED jobs that are promised no place. Whoever changes a job takes it out
    and puts it in again."""

    def __init__(self, jobs: Mapping[str, JobRecord], rules: SchedulingRules, usage: Usage) -> None:
        """`jobs` has the newest version of each job that waits, by id."""
        self._jobs = jobs
        self._rules = rules
        self._usage = usage
        self._alike: dict[Alike, list[Place]] = {}
        #: The first of each of those.
        self._heads: dict[tuple[Account, Lane], list[Place]] = {}
        #: The first of each of those, by the account's queue.
        self._fronts: dict[tuple[str, Lane], list[Front]] = {}
        #: The first of each of those.
        self._queues: dict[Lane, list[Front]] = {}
        self._front: dict[tuple[Account, Lane], Front] = {}
        #: Those of which no job can start, whatever ends, and which have no turn: see `park`.
        self._parked: set[Alike] = set()
        self._parked_for = -1
        #: Cores and bytes of memory for each GPU, of all that ask for GPUs.
        self._densities: tuple[list[float], list[float]] = ([], [])
        #: How many are subject to a limit, by those who share it.
        self._limited: Counter[tuple[Account, Lane]] = Counter()

    def add(self, job: JobRecord) -> None:
        """Put a job in; nothing if it is not QUEUED, or is promised a place."""
        if job.status is not Status.QUEUED or job.promise is not None:
            return
        alike, place = self.alike_of(job), self.place_of(job)
        at = alike.account, lane_of(alike.resource_request)
        places = self._alike.get(alike)
        if places is None:
            places = self._alike[alike] = []
            for density, value in self._densities_of(alike.resource_request):
                insort(density, value)
        heads = self._heads.setdefault(at, [])
        if alike not in self._parked and (not places or place < places[0]):
            if places:
                _remove(heads, places[0])
            insort(heads, place)
        insort(places, place)
        self._refresh(*at)
        self._count_limits(job, at[1], 1)

    def remove(self, job: JobRecord) -> None:
        """Take a job out as it was put in; nothing if it was not."""
        if job.status is not Status.QUEUED or job.promise is not None:
            return
        alike, place = self.alike_of(job), self.place_of(job)
        at = alike.account, lane_of(alike.resource_request)
        places, heads = self._alike[alike], self._heads.get(at, [])
        if places[0] == place and alike not in self._parked:
            _remove(heads, place)
            if len(places) > 1:
                insort(heads, places[1])
        _remove(places, place)
        if not places:
            del self._alike[alike]
            self._parked.discard(alike)
            for density, value in self._densities_of(alike.resource_request):
                _remove(density, value)
        self._refresh(*at)
        self._count_limits(job, at[1], -1)

    def park(self, alike: Alike) -> None:
        """Look at none of these until `unpark`: nothing that ends lets one of them start."""
        at = alike.account, lane_of(alike.resource_request)
        self._parked.add(alike)
        _remove(self._heads[at], self._alike[alike][0])
        self._refresh(*at)

    def unpark(self, version: int) -> None:
        """Look at all again, if the nodes are not those of the last look; `version` says which
        they are."""
        if version == self._parked_for:
            return
        self._parked_for = version
        parked, self._parked = self._parked, set()
        for alike in parked:
            at = alike.account, lane_of(alike.resource_request)
            insort(self._heads.setdefault(at, []), self._alike[alike][0])
            self._refresh(*at)

    def is_parked(self, alike: Alike) -> bool:
        """Whether none of these can start on the nodes of the last look."""
        return alike in self._parked

    def held_changed(self, job: JobRecord) -> None:
        """Note that the tenant of a job holds more or less."""
        account = self._rules.account_of(job)
        if self.is_fair(account):
            for lane in self.lanes_with(gpus_only=False):
                if (account, lane) in self._front:
                    self._refresh(account, lane)

    def _refresh(self, account: Account, lane: Lane) -> None:
        """Bring the account's front up to date."""
        at = account.queue_name, lane
        heads = self._heads.get((account, lane), [])
        before = self._front.get((account, lane))
        after = self.front(account, heads[0]) if heads else None
        if before == after:
            if after is None:
                self._heads.pop((account, lane), None)
            return
        fronts = self._fronts.setdefault(at, [])
        first = fronts[0] if fronts else None
        if before is not None:
            _remove(fronts, before)
        if after is not None:
            self._front[account, lane] = after
            insort(fronts, after)
        else:
            del self._front[account, lane], self._heads[account, lane]
        self._refresh_queue(at, first)

    def _refresh_queue(self, at: tuple[str, Lane], before: Front | None) -> None:
        """Bring the first of a queue up to date."""
        fronts, queues = self._fronts[at], self._queues.setdefault(at[1], [])
        after = fronts[0] if fronts else None
        if before != after:
            if before is not None:
                _remove(queues, before)
            if after is not None:
                insort(queues, after)
        if not fronts:
            del self._fronts[at]

    def alike_of(self, job: JobRecord) -> Alike:
        """What a job has in common with others."""
        return Alike(self._rules.account_of(job), job.resource_request, job.max_runtime)

    def place_of(self, job: JobRecord) -> Place:
        """Where a job stands among those of its account."""
        return place_of(job, self._rules)

    def front(self, account: Account, place: Place) -> Front:
        """When it is the turn of an account's job, as things are."""
        used = self._usage.used(account) if self.is_fair(account) else _NOTHING
        return Front(place.urgency, used, place.created_at, place.job_id, account)

    def front_of(self, job: JobRecord) -> Front:
        """When it would be the turn of a job if it were QUEUED, and not promised anything."""
        place = self.place_of(job)._replace(pending=False)
        account = self._rules.account_of(job)
        used = self._usage.used(account, without=job) if self.is_fair(account) else _NOTHING
        return Front(place.urgency, used, place.created_at, place.job_id, account)

    def shares_of(self, alike: Alike) -> tuple[float, float, float]:
        """What one of these would hold of its tenant's shares."""
        return self._usage.shares_of(alike.account, alike.resource_request, 1)

    def places(self, alike: Alike) -> Sequence[Place]:
        """All jobs that have this in common, in order."""
        return self._alike.get(alike, ())

    def is_fair(self, account: Account) -> bool:
        """Whether the turn of an account's jobs depends on what its tenant holds."""
        if not account.queue_name:
            # Of queues in the common order; the rules of "any queue" are no rules of theirs.
            return False
        return self._rules.queue(account.queue_name).order is QueueOrder.FAIR

    def front_after(self, alike: Alike, place: Place, number: int) -> Front:
        """When it is the turn of one of those that are alike once `number` of them hold what they
        ask for."""
        account = alike.account
        front = self.front(account, place)
        if not number or not self.is_fair(account):
            return front
        more = self._usage.shares_of(account, alike.resource_request, number)
        return front._replace(used=tuple(map(add, front.used, more)))

    def densest(self) -> tuple[float, float]:
        """The most cores and bytes of memory that are asked for with a GPU, for each GPU."""
        cores, memory = self._densities
        return (cores[-1] if cores else 0.0), (memory[-1] if memory else 0.0)

    def lanes_with(self, *, gpus_only: bool) -> range:
        """All lanes, or those whose jobs ask for GPUs."""
        return range(CORES + 1 if gpus_only else IDLE, CORES + _MOST_GPU_LANES + 1)

    def next_queue(self, lane: Lane, behind: Front | None) -> Front | None:
        """The first of the next queue of a lane: of those that have rules of their own, and of all
        others together."""
        return _next(self._queues.get(lane, ()), behind)

    def next_front(self, queue_name: str, lane: Lane, behind: Front | None) -> Front | None:
        """The next account of a queue."""
        return _next(self._fronts.get((queue_name, lane), ()), behind)

    def next_head(self, account: Account, lane: Lane, behind: Place) -> JobRecord | None:
        """The account's next job that is the first of those that it is alike."""
        heads = self._heads.get((account, lane), [])
        at = bisect_right(heads, behind)
        return self._jobs[heads[at].job_id] if at < len(heads) else None

    def job(self, job_id: str) -> JobRecord:
        """The newest version of a job."""
        return self._jobs[job_id]

    def waits(self, account: Account, lane: Lane) -> bool:
        """Whether there is any in a lane who shares a limit."""
        return (account, lane) in self._limited

    def _count_limits(self, job: JobRecord, lane: Lane, more: int) -> None:
        for limit in self._rules.limits_of(job):
            at = limit.account, lane
            self._limited[at] += more
            if not self._limited[at]:
                del self._limited[at]

    def _densities_of(self, resource_request: ResourceRequest) -> list[tuple[list[float], float]]:
        gpus = resource_request.gpus
        if not gpus:
            return []
        cores, memory = self._densities
        return [(cores, resource_request.cpus / gpus), (memory, resource_request.memory / gpus)]

    def validate(self) -> None:
        """Raise AssertionError unless the index is that of the jobs."""
        again = Candidates(self._jobs, self._rules, self._usage)
        again._parked = set(self._parked)
        for job in self._jobs.values():
            again.add(job)
        assert self._alike == again._alike
        assert self._heads == again._heads
        assert self._fronts == again._fronts
        queues = {lane: fronts for lane, fronts in self._queues.items() if fronts}
        assert queues == {lane: fronts for lane, fronts in again._queues.items() if fronts}
        assert self._front == again._front
        assert self._densities == again._densities
        assert self._limited == again._limited


def _next(fronts: Sequence[Front], behind: Front | None) -> Front | None:
    at = 0 if behind is None else bisect_right(fronts, behind)
    return fronts[at] if at < len(fronts) else None


def _remove(items: list[Any], item: Any) -> None:
    at = bisect_left(items, item)
    assert items[at] == item
    del items[at]
