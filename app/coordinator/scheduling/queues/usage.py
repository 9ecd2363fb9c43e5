"""What queues and tenants hold, and whether a limit lets them hold more."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.queue_rules import Account, Limits, SchedulingRules, total_gpus


class Held(NamedTuple):
    """What some jobs hold together."""

    gpus: int = 0
    cpus: int = 0
    jobs: int = 0


class Scope(Enum):
    """Whose limit it is."""

    QUEUE = "queue"
    TENANT_IN_QUEUE = "tenant in queue"
    TENANT = "tenant"


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


class Usage:
    """Counts of what is held. Whoever changes a job takes it out and puts it in again."""

    def __init__(self, rules: SchedulingRules) -> None:
        self._rules = rules
        self._held: dict[Account, Held] = {}
        #: Of a queue (its tenant is empty), of a tenant (its queue is empty), and of both.
        self.held: Mapping[Account, Held] = MappingProxyType(self._held)

    def add(self, job: JobRecord) -> None:
        """Count a job that holds resources."""
        self._count(job, 1)

    def remove(self, job: JobRecord) -> None:
        """Count it no more."""
        self._count(job, -1)

    def _count(self, job: JobRecord, sign: int) -> None:
        gpus = sign * sum(len(allocation.gpus) for allocation in job.placement)
        cpus = sign * sum(allocation.cpus for allocation in job.placement)
        for account in (
            Account(job.queue_name, ""),
            Account("", job.tenant_id),
            Account(job.queue_name, job.tenant_id),
        ):
            before = self._held.get(account, Held())
            after = Held(before.gpus + gpus, before.cpus + cpus, before.jobs + sign)
            if after == Held():
                self._held.pop(account, None)
            else:
                self._held[account] = after

    def used(self, account: Account) -> tuple[float, float, float]:
        """What a tenant holds of a queue for each of its shares: GPUs, then cores, then jobs."""
        held = self._held.get(account)
        if held is None:
            return (0.0, 0.0, 0.0)
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

    def excess(self, job: JobRecord) -> Excess | None:
        """The first limit that keeps a job from starting now."""
        queue = self._rules.queue(job.queue_name)
        tenant = self._rules.tenant(job.tenant_id)
        gpus = total_gpus(job.resource_request)
        for scope, limits, account in (
            (Scope.QUEUE, queue.limits, Account(job.queue_name, "")),
            (Scope.TENANT_IN_QUEUE, queue.tenant_limits, Account(job.queue_name, job.tenant_id)),
            (Scope.TENANT, tenant.limits, Account("", job.tenant_id)),
        ):
            if not limits:
                continue
            held = self._held.get(account, Held())
            if limits.jobs is not None and held.jobs >= limits.jobs:
                return Excess(scope, account, limits, held, of_gpus=False)
            if gpus and limits.gpus is not None and held.gpus + gpus > limits.gpus:
                return Excess(scope, account, limits, held, of_gpus=True)
        return None

    def validate(self, holding: Iterable[JobRecord]) -> None:
        """Raise AssertionError unless the counts are those of the jobs."""
        again = Usage(self._rules)
        for job in holding:
            again.add(job)
        assert self._held == again._held
