"""When the limits of queues and tenants let planned jobs start."""

from bisect import insort
from collections.abc import Iterable

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import (
    Account,
    Limit,
    Limits,
    SchedulingRules,
    total_gpus,
)
from app.coordinator.scheduling.backfill.profile import FOREVER


class Quotas:
    """What is held under each limit over time. Times are microseconds from now."""

    def __init__(self, rules: SchedulingRules, holding: Iterable[tuple[JobRecord, int]]) -> None:
        """`holding` are the jobs that hold something, each with its end."""
        self._rules = rules
        #: By whose limit it is: when GPUs and jobs come and go.
        self._changes: dict[Account, list[tuple[int, int, int]]] = {}
        #: From when the next under a limit may start: none passes one that a limit keeps waiting.
        self._floors: dict[tuple[Account, bool], int] = {}
        for job, end in holding:
            self.add(job, 0, end)

    def add(self, job: JobRecord, start: int, end: int) -> None:
        """Count a job from `start` until `end`."""
        gpus = total_gpus(job.resource_request)
        for _, account, _ in self._rules.limits_of(job):
            changes = self._changes.setdefault(account, [])
            insort(changes, (start, gpus, 1))
            if end < FOREVER:
                insort(changes, (end, -gpus, -1))

    def earliest(self, job: JobRecord, length: int, start: int) -> int:
        """The first moment from `start` on from which no limit is in the way of a job for so long,
        and at which it passes none that a limit keeps waiting; FOREVER if there is none."""
        gpus = total_gpus(job.resource_request)
        for _, account, limits in self._rules.limits_of(job):
            start = max(start, self._floors.get((account, bool(gpus)), 0))
            moment = self._first(account, limits, gpus, length, start)
            if moment > start:
                for kind in {True, bool(gpus)} if limits.jobs is None else (True, False):
                    self._floors[account, kind] = moment
            start = moment
        return start

    def exceeded_within(self, limit: Limit, job: JobRecord, length: int) -> bool | None:
        """Whether the limit of GPUs, else that of jobs, would be exceeded within so long if a job
        started now; None if neither would be."""
        gpus = total_gpus(job.resource_request)
        _, account, limits = limit
        for of_gpus, part in ((False, Limits(jobs=limits.jobs)), (True, Limits(gpus=limits.gpus))):
            if part and self._first(account, part, gpus, length, 0):
                return of_gpus
        return None

    def _first(self, account: Account, limits: Limits, gpus: int, length: int, start: int) -> int:
        """The first moment from `start` on from which one limit allows so many GPUs for so long."""
        held_gpus = held_jobs = 0
        moment = start
        for at, more_gpus, more_jobs in self._changes.get(account, ()):
            if at > moment and not _allow(limits, gpus, held_gpus, held_jobs):
                moment = at
            elif at >= moment + length:
                return moment
            held_gpus += more_gpus
            held_jobs += more_jobs
        return moment if _allow(limits, gpus, held_gpus, held_jobs) else FOREVER


def _allow(limits: Limits, gpus: int, held_gpus: int, held_jobs: int) -> bool:
    return (limits.jobs is None or held_jobs < limits.jobs) and (
        not gpus or limits.gpus is None or held_gpus + gpus <= limits.gpus
    )
