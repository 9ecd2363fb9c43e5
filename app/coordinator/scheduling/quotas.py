"""When the limits of queues and tenants let planned jobs start."""

from bisect import insort
from collections.abc import Iterable

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import Account, Limits, SchedulingRules, total_gpus


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
        for account, _ in self._limits(job):
            changes = self._changes.setdefault(account, [])
            insort(changes, (start, gpus, 1))
            insort(changes, (end, -gpus, -1))

    def earliest(self, job: JobRecord, start: int) -> int:
        """The first moment from `start` on at which no limit keeps the job from starting."""
        gpus = total_gpus(job.resource_request)
        for account, limits in self._limits(job):
            start = max(start, self._floors.get((account, bool(gpus)), 0))
            moment = self._first(account, limits, gpus, start)
            if moment > start:
                for kind in {True, bool(gpus)} if limits.jobs is None else (True, False):
                    self._floors[account, kind] = moment
            start = moment
        return start

    def _first(self, account: Account, limits: Limits, gpus: int, start: int) -> int:
        held_gpus = held_jobs = 0
        moment = start
        changes = self._changes.get(account, ())
        for at, more_gpus, more_jobs in changes:
            if at > moment:
                if _allow(limits, gpus, held_gpus, held_jobs):
                    return moment
                moment = at
            held_gpus += more_gpus
            held_jobs += more_jobs
        return moment

    def _limits(self, job: JobRecord) -> list[tuple[Account, Limits]]:
        queue, tenant = self._rules.queue(job.queue_name), self._rules.tenant(job.tenant_id)
        return [
            (account, limits)
            for account, limits in (
                (Account(job.queue_name, ""), queue.limits),
                (Account(job.queue_name, job.tenant_id), queue.tenant_limits),
                (Account("", job.tenant_id), tenant.limits),
            )
            if limits
        ]


def _allow(limits: Limits, gpus: int, held_gpus: int, held_jobs: int) -> bool:
    return (limits.jobs is None or held_jobs < limits.jobs) and (
        not gpus or limits.gpus is None or held_gpus + gpus <= limits.gpus
    )
