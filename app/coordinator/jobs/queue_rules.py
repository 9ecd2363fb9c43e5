"""What the operator sets for queues and tenants: an order for each queue, and limits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    # The settings of every program import this module, and none of them needs the jobs.
    from app.coordinator.jobs.model import JobRecord, ResourceRequest

#: The name of a queue.
QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Names the rules of every queue, or of every tenant, that has none of its own.
ANY: Final = "*"
#: Seconds that may be set as the longest run: ten years.
LONGEST_RUN: Final = 10 * 365 * 24 * 3600


class QueueOrder(StrEnum):
    """In which order the jobs of a queue are placed."""

    #: By priority, then age.
    PRIORITY = "priority"
    #: By age alone. Among other queues its jobs count as of priority 5.
    AGE = "age"
    #: By priority, then by what the tenant holds of the queue for each of its shares, then age.
    FAIR = "fair"


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be held at once; None sets no limit."""

    gpus: int | None = None
    #: Jobs that hold resources: from when they are placed until they have ended.
    jobs: int | None = None

    def __bool__(self) -> bool:
        """Whether any is set."""
        return self.gpus is not None or self.jobs is not None

    def never(self, resource_request: "ResourceRequest") -> str:
        """Why they keep a job from ever starting; empty if they do not."""
        gpus = total_gpus(resource_request)
        if gpus and self.gpus is not None and gpus > self.gpus:
            return f"{self.gpus} GPUs at once"
        return "0 jobs at once" if self.jobs == 0 else ""


@dataclass(frozen=True, slots=True)
class QueueRules:
    """The rules of one queue."""

    order: QueueOrder = QueueOrder.PRIORITY
    #: Of all jobs of the queue together.
    limits: Limits = Limits()
    #: Of each tenant's jobs in the queue.
    tenant_limits: Limits = Limits()
    #: Seconds that a run of a job may take which sets no max_runtime_seconds; 0 sets no limit.
    max_runtime: int = 0


@dataclass(frozen=True, slots=True)
class TenantRules:
    """The rules of one tenant."""

    #: Of its jobs in all queues together.
    limits: Limits = Limits()
    #: Its weight in a queue of the order `fair`.
    shares: int = 1


class Scope(Enum):
    """Whose limit it is."""

    QUEUE = "queue"
    TENANT_IN_QUEUE = "tenant in queue"
    TENANT = "tenant"


class Account(NamedTuple):
    """Jobs that are subject to the same rules: of a queue, of a tenant, or of both. Empty is any
    that has no rules of its own."""

    queue_name: str
    tenant_id: str


class Limit(NamedTuple):
    """A limit, and those who share it; what the scope does not name of these is empty."""

    scope: Scope
    account: Account
    limits: Limits

    def covers(self, job: "JobRecord") -> bool:
        """Whether a job is subject to it."""
        return self.account.queue_name in ("", job.queue_name) and self.account.tenant_id in (
            "",
            job.tenant_id,
        )


_QUEUE: Final = QueueRules()
_TENANT: Final = TenantRules()


@dataclass(frozen=True, slots=True)
class SchedulingRules:
    """All rules. Without any, all jobs are in one order by priority, then age."""

    queues: Mapping[str, QueueRules] = field(default_factory=lambda: MappingProxyType({}))
    tenants: Mapping[str, TenantRules] = field(default_factory=lambda: MappingProxyType({}))
    #: Whether there is any limit.
    limited: bool = field(init=False, repr=False, compare=False)

    def queue(self, name: str) -> QueueRules:
        """The rules of a queue."""
        return self.queues.get(name) or self.queues.get(ANY, _QUEUE)

    def is_any(self, queue_name: str) -> bool:
        """Whether the rules of any queue are those of this one: clients make up such names."""
        return ANY in self.queues and queue_name not in self.queues

    def tenant(self, tenant_id: str) -> TenantRules:
        """The rules of a tenant."""
        return self.tenants.get(tenant_id) or self.tenants.get(ANY, _TENANT)

    def __post_init__(self) -> None:
        """Note whether there is any limit."""
        limited = any(rules.limits or rules.tenant_limits for rules in self.queues.values())
        limited |= any(bool(rules.limits) for rules in self.tenants.values())
        object.__setattr__(self, "limited", limited)

    def limits_of(self, job: "JobRecord") -> list[Limit]:
        """The limits that a job is subject to."""
        if not self.limited:
            return []
        queue, tenant = self.queue(job.queue_name), self.tenant(job.tenant_id)
        of_both = Account(job.queue_name, job.tenant_id)
        found = (
            Limit(Scope.QUEUE, Account(job.queue_name, ""), queue.limits),
            Limit(Scope.TENANT_IN_QUEUE, of_both, queue.tenant_limits),
            Limit(Scope.TENANT, Account("", job.tenant_id), tenant.limits),
        )
        return [limit for limit in found if limit.limits]

    def account_of(self, job: "JobRecord") -> Account:
        """Whose rules a job is subject to."""
        queue, tenant = self.queue(job.queue_name), self.tenant(job.tenant_id)
        by_tenant = queue.order is QueueOrder.FAIR or queue.tenant_limits or tenant.limits
        by_queue = bool(queue.order is not _QUEUE.order or queue.limits or queue.tenant_limits)
        return Account(job.queue_name if by_queue else "", job.tenant_id if by_tenant else "")

    def never(self, job: "JobRecord") -> str:
        """Why a limit keeps a job from ever starting; empty if none does."""
        if not self.limited:
            return ""
        queue, tenant = self.queue(job.queue_name), self.tenant(job.tenant_id)
        for limits, whose in (
            (queue.limits, f"queue {job.queue_name}"),
            (queue.tenant_limits, f"each tenant in queue {job.queue_name}"),
            (tenant.limits, "the tenant"),
        ):
            if reason := limits.never(job.resource_request):
                return f"the limit of {whose} is {reason}"
        return ""


def total_gpus(resource_request: "ResourceRequest") -> int:
    """GPUs on all nodes together."""
    return resource_request.gpus * resource_request.nodes
