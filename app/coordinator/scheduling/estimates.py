"""How long jobs are expected to wait, from the run times that were measured."""

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
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


def waits(
    cluster: Cluster,
    waiting: Sequence[JobRecord],
    holding: Sequence[JobRecord],
    run_times: RunTimes,
    now: int,
    ran: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, int]:
    """Seconds until each of `waiting` starts, by job id: the queue played forward. At most LONGEST.

    `ran` has the seconds that runs of `holding` have taken so far, by job id.
    `waiting` is in the order of placement. A job that no enabled node can
    take is given the time at which everything before it is over.
    """
    trial = cluster.copy()
    by_id = {job.job_id: job for job in (*holding, *waiting)}
    placements = {job.job_id: job.placement for job in holding}
    ends: list[tuple[float, str]] = []
    for job in holding:
        left = run_times.expected(job) - ran.get(job.job_id, 0.0)
        heapq.heappush(ends, (max(left, 1.0), job.job_id))
    clock = 0.0
    answer: dict[str, int] = {}
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
        answer[job.job_id] = max(0, round(min(start, LONGEST)))
        if placement is not None:
            trial.allocate(job.job_id, placement)
            placements[job.job_id] = placement
            heapq.heappush(ends, (start + run_times.expected(by_id[job.job_id]), job.job_id))
    return answer
