"""How long jobs are expected to wait, from the run times that were measured."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cachetools import LRUCache

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import SchedulingRules
from app.coordinator.scheduling.backfill.plan import Plan

#: Assumed of a queue in which nothing has run yet, in seconds.
UNMEASURED_RUN = 300
#: No run or wait is told as longer, in seconds: ten years. What a job asks for may be any number.
LONGEST = 10 * 365 * 24 * 3600
_REMEMBERED = 50
#: Queues whose run times are remembered: jobs may name any.
_MOST_QUEUES = 1024
_SECOND = 1_000_000
_NO_RULES: Final = SchedulingRules()


class RunTimes:
    """The newest measured run times, by queue: of those queues in which something ran last."""

    def __init__(self) -> None:
        self._seconds: LRUCache[str, deque[float]] = LRUCache(_MOST_QUEUES)

    def add_seconds(self, queue_name: str, seconds: float) -> None:
        """Count a run time."""
        bounded = min(max(seconds, 0.0), LONGEST)
        measured = self._seconds.get(queue_name)
        if measured is None:
            measured = self._seconds[queue_name] = deque(maxlen=_REMEMBERED)
        measured.append(bounded)

    def expected(self, job: JobRecord) -> float:
        """Seconds that a run of `job` is expected to take."""
        limit = min(job.max_runtime, LONGEST * _SECOND) / _SECOND
        seen = self._seconds.get(job.queue_name)
        if not seen:
            return limit or UNMEASURED_RUN
        mean = sum(seen) / len(seen)
        return min(mean, limit) if limit else mean


@dataclass(frozen=True, slots=True)
class Forecast:
    """The first jobs of the queue planned, and how fast those behind them move up."""

    #: Seconds until each of the first jobs starts, by job id. At most LONGEST.
    waits: Mapping[str, int]
    #: Seconds until the last of them starts.
    reached: float
    #: Seconds for which each job behind them waits longer than the one before it.
    pace: float

    def wait(self, job: JobRecord, *, rank: int, now: int) -> int:
        """Seconds until a job starts that has `rank` jobs before it in the queue."""
        if (played := self.waits.get(job.job_id)) is not None:
            return played
        behind = max(rank + 1 - len(self.waits), 1)
        start = max(self.reached + behind * self.pace, (job.not_before - now) / _SECOND)
        return max(0, round(min(start, LONGEST)))


def forecast(
    cluster: Cluster,
    waiting: Sequence[JobRecord],
    holding: Iterable[JobRecord],
    run_times: RunTimes,
    now: int,
    ran: Mapping[str, float] = MappingProxyType({}),
    *,
    rules: SchedulingRules = _NO_RULES,
) -> Forecast:
    """Plan when each of `waiting` starts, if nothing else comes: one after the other, in the order
    of their turns, where it fits between those before it and no limit is in the way.

    It is the scheduler's own plan, but for when runs end: as is expected of
    them, and not at their limits. `ran` has the seconds that runs of `holding` have
    taken so far, by job id. A job for which nobody set a limit, or that comes behind
    one whose start the scheduler does not know, starts no earlier than those before it
    that ask for the same. A job that no enabled node can take is given the time
    at which the last of those before it starts. One that is promised a place has that, whoever
    comes before it. Behind the last of them, jobs
    are taken to be as these are: as one of those that run ends, one starts.
    """
    held = {job.job_id: job for job in holding}
    ends = {
        job_id: _micros(max(run_times.expected(job) - ran.get(job_id, 0.0), 1.0))
        for job_id, job in held.items()
    }
    plan = Plan(cluster, held, lambda job: ends[job.job_id], rules)
    endless = {
        share.node_id for job in held.values() if not job.max_runtime for share in job.placement
    }
    planned: list[_Planned] = []
    waits: dict[str, int] = {}
    last, total = 0, 0.0
    for job in sorted(waiting, key=lambda job: job.promise is None):
        expected = run_times.expected(job)
        length = max(_micros(expected), 1)
        total += expected
        usable = cluster.usable(job.resource_request)
        if job.promise is not None:
            usable &= {share.node_id for share in job.promise.shares}
        start = max(job.not_before - now, 0)
        for other in planned:
            if (other.unknown or not job.max_runtime) and other.in_way_of(job, usable):
                start = max(start, other.start)
        found = None
        if len(usable) >= job.resource_request.nodes:
            found = plan.reserve(job, usable, length, start)
        start = max(start, last) if found is None else found.start
        planned.append(_Planned(job, usable, start, start + length, bool(usable & endless)))
        if job.not_before <= now:
            last = max(last, start)
        waits[job.job_id] = round(min(start / _SECOND, LONGEST))
    running = sum(end > last for end in ends.values()) + sum(
        each.start <= last < each.end for each in planned
    )
    waits = {job.job_id: waits[job.job_id] for job in waiting}
    return Forecast(waits, last / _SECOND, total / max(len(waits), 1) / max(running, 1))


@dataclass(frozen=True, slots=True)
class _Planned:
    """A job that starts ahead of others."""

    job: JobRecord
    usable: Collection[str]
    start: int
    end: int
    #: Whether a run that nothing ends keeps the scheduler from knowing when it starts.
    unknown: bool

    def in_way_of(self, job: JobRecord, usable: Set[str]) -> bool:
        """Whether both ask for the same of the same nodes."""
        own, other = self.job.resource_request, job.resource_request
        return not usable.isdisjoint(self.usable) and bool(
            (own.gpus and other.gpus)
            or (own.cpus and other.cpus)
            or (own.memory and other.memory)
            or not (own.cpus or other.cpus)
        )


def _micros(seconds: float) -> int:
    return round(min(seconds, LONGEST) * _SECOND)
