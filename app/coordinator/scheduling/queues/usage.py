"""What queues and tenants hold, and whether a limit lets them hold more."""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import sub
from typing import Final, NamedTuple

from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.queue_rules import (
    Account,
    Limit,
    Limits,
    SchedulingRules,
    Scope,
    total_gpus,
)


class Held(NamedTuple):
    """What some jobs hold together."""

    gpus: int = 0
    cpus: int = 0
    jobs: int = 0


_NOTHING: Final = Held()


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that a job would exceed."""

    scope: Scope
    #: Of the queue and the tenant; what the scope does not name is empty.
    account: Account
    limits: Limits
    held: Held
    #: The limit of GPUs, else that of jobs.
    of_gpus: bool
    #: What is left is needed by jobs ahead.
    of_ahead: bool = False


def held_of(job: JobRecord) -> Held:
    """What a job holds, or is promised."""
    shares = job.placement or (job.promise.shares if job.promise is not None else ())
    return Held(
        sum(len(share.gpus) for share in shares),
        sum(share.cpus for share in shares),
        int(bool(shares)),
    )


class Usage:
    """Counts of what is held, and of what is promised as if it were. Whoever changes a job takes it
    out and puts it in again."""

    def __init__(self, rules: SchedulingRules) -> None:
        self._rules = rules
        #: Of a queue (its tenant is empty), of a tenant (its queue is empty), and of both.
        self._held: dict[Account, Held] = {}

    def of(self, account: Account) -> Held:
        """What is held of a queue (its tenant is empty), by a tenant (its queue is empty), or by a
        tenant of a queue."""
        return self._held.get(account, _NOTHING)

    def add(self, job: JobRecord) -> None:
        """Count a job that holds resources, or is promised some."""
        self._count(job, 1)

    def remove(self, job: JobRecord) -> None:
        """Count it no more."""
        self._count(job, -1)

    def _count(self, job: JobRecord, sign: int) -> None:
        gpus, cpus, jobs = (sign * each for each in held_of(job))
        for account in (
            Account(job.queue_name, ""),
            Account("", job.tenant_id),
            Account(job.queue_name, job.tenant_id),
        ):
            before = self.of(account)
            after = Held(before.gpus + gpus, before.cpus + cpus, before.jobs + jobs)
            if after == Held():
                self._held.pop(account, None)
            else:
                self._held[account] = after

    def used(
        self, account: Account, *, without: JobRecord | None = None
    ) -> tuple[float, float, float]:
        """What a tenant holds of a queue for each of its shares: GPUs, then cores, then jobs. A job
        of its own may be left out."""
        held = self._held.get(account)
        if held is None:
            return (0.0, 0.0, 0.0)
        if without is not None:
            held = Held(*map(sub, held, held_of(without)))
        shares = self._rules.tenant(account.tenant_id).shares
        return (held.gpus / shares, held.cpus / shares, held.jobs / shares)

    def shares_of(
        self, account: Account, resource_request: ResourceRequest, jobs: int
    ) -> tuple[float, float, float]:
        """What so many jobs would hold, as `used` counts it."""
        shares = self._rules.tenant(account.tenant_id).shares
        nodes = jobs * resource_request.nodes
        return (
            resource_request.gpus * nodes / shares,
            resource_request.cpus * nodes / shares,
            jobs / shares,
        )

    def excess(self, job: JobRecord) -> list[Excess]:
        """The limits that keep a job from starting now."""
        found = []
        gpus = total_gpus(job.resource_request)
        for limit in self._rules.limits_of(job):
            held, limits = self.of(limit.account), limit.limits
            if limits.jobs is not None and held.jobs >= limits.jobs:
                found.append(self.excess_of(limit, of_gpus=False))
            elif gpus and limits.gpus is not None and held.gpus + gpus > limits.gpus:
                found.append(self.excess_of(limit, of_gpus=True))
        return found

    def exceeds(self, job: JobRecord) -> bool:
        """Whether a job that is counted exceeds a limit together with the others."""
        self.remove(job)
        try:
            return bool(self.excess(job))
        finally:
            self.add(job)

    def excess_of(self, limit: Limit, *, of_gpus: bool, of_ahead: bool = False) -> Excess:
        """A limit that a job would exceed: that of GPUs, else that of jobs."""
        scope, account, limits = limit
        return Excess(scope, account, limits, self.of(account), of_gpus, of_ahead)

    def validate(self, holding: Iterable[JobRecord]) -> None:
        """Raise AssertionError unless the counts are those of the jobs."""
        again = Usage(self._rules)
        for job in holding:
            again.add(job)
        assert self._held == again._held
