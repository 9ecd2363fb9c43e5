"""What the operator sets for queues and tenants: an order for each queue, and limits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
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


class Account(NamedTuple):
    """Jobs that are subject to the same rules: of a queue, of a tenant, or of both. Empty is any
    that has no rules of its own."""

    queue_name: str
    tenant_id: str


_QUEUE: Final = QueueRules()
_TENANT: Final = TenantRules()


@dataclass(frozen=True, slots=True)
class SchedulingRules:
    """All rules. Without any, all jobs are in one order by priority, then age."""

    queues: Mapping[str, QueueRules] = field(default_factory=lambda: MappingProxyType({}))
    tenants: Mapping[str, TenantRules] = field(default_factory=lambda: MappingProxyType({}))

    def queue(self, name: str) -> QueueRules:
        """The rules of a queue."""
        return self.queues.get(name) or self.queues.get(ANY, _QUEUE)

    def tenant(self, tenant_id: str) -> TenantRules:
        """The rules of a tenant."""
        return self.tenants.get(tenant_id) or self.tenants.get(ANY, _TENANT)

    def account_of(self, job: "JobRecord") -> Account:
        """Whose rules a job is subject to."""
        queue, tenant = self.queue(job.queue_name), self.tenant(job.tenant_id)
        by_tenant = queue.order is QueueOrder.FAIR or queue.tenant_limits or tenant.limits
        by_queue = bool(queue.order is not _QUEUE.order or queue.limits or queue.tenant_limits)
        return Account(job.queue_name if by_queue else "", job.tenant_id if by_tenant else "")

    def never(self, job: "JobRecord") -> str:
        """Why a limit keeps a job from ever starting; empty if none does."""
        gpus = total_gpus(job.resource_request)
        queue, tenant = self.queue(job.queue_name), self.tenant(job.tenant_id)
        for limits, whose in (
            (queue.limits, f"queue {job.queue_name}"),
            (queue.tenant_limits, f"each tenant in queue {job.queue_name}"),
            (tenant.limits, "the tenant"),
        ):
            if gpus and limits.gpus is not None and gpus > limits.gpus:
                return f"the limit of {whose} is {limits.gpus} GPUs at once"
            if limits.jobs == 0:
                return f"the limit of {whose} is 0 jobs at once"
        return ""


def total_gpus(resource_request: "ResourceRequest") -> int:
    """GPUs on all nodes together."""
    return resource_request.gpus * resource_request.nodes
