"""How long jobs are expected to wait, from the run times that were measured."""

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord

#: Assumed of a queue in which nothing has run yet, in seconds.
UNMEASURED_RUN = 300
#: No run or wait is told as longer, in seconds: ten years. What a job asks for may be any number.
LONGEST = 10 * 365 * 24 * 3600
_REMEMBERED = 50
_SECOND = 1_000_000


class RunTimes:
    """The newest measured run times, by queue."""

    def __init__(self) -> None:
        self._seconds: dict[str, deque[float]] = {}

    def add_seconds(self, queue_name: str, seconds: float) -> None:
        """Count a run time."""
        bounded = min(max(seconds, 0.0), LONGEST)
        self._seconds.setdefault(queue_name, deque(maxlen=_REMEMBERED)).append(bounded)

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
    """The first jobs of the queue played forward, and how fast those behind them move up."""

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
) -> Forecast:
    """Play the queue forward: when each of `waiting` starts, if nothing else comes.

    `ran` has the seconds that runs of `holding` have taken so far, by job id.
    `waiting` is in the order of placement. A job that no enabled node can
    take is given the time at which everything before it is over. Behind the
    last of them, jobs are taken to be as these are: as one of those that run
    ends, one starts.
    """
    trial = cluster.copy()
    placements = {job.job_id: job.placement for job in holding}
    ends: list[tuple[float, str]] = []
    for job in holding:
        left = run_times.expected(job) - ran.get(job.job_id, 0.0)
        heapq.heappush(ends, (max(left, 1.0), job.job_id))
    clock = total = 0.0
    waits: dict[str, int] = {}
    for job in waiting:
        start = max(clock, (job.not_before - now) / _SECOND)
        while ends and ends[0][0] <= start:
            _, over = heapq.heappop(ends)
            trial.release(over, placements[over])
        while (placement := trial.place(job.resource_request)) is None and ends:
            start, over = heapq.heappop(ends)
            trial.release(over, placements[over])
        if job.not_before <= now:
            clock = start
        waits[job.job_id] = max(0, round(min(start, LONGEST)))
        expected = run_times.expected(job)
        total += expected
        if placement is not None:
            trial.allocate(job.job_id, placement)
            placements[job.job_id] = placement
            heapq.heappush(ends, (start + expected, job.job_id))
    pace = total / max(len(waits), 1) / max(len(ends), 1)
    return Forecast(waits, clock, pace)
