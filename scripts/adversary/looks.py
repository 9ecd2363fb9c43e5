"""A walk over all that waits, as the documents have it: by brute force, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import Limit, QueueOrder, SchedulingRules, total_gpus
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.transitions import Transition
from scripts.adversary.attack import Attack
from scripts.adversary.capacity import placed_in

Used: TypeAlias = tuple[float, float, float]
Turn: TypeAlias = tuple[int, Used, int, str]


@dataclass
class Look:
    """The state in which the next job has its turn."""

    rules: SchedulingRules
    cluster: Cluster
    #: What is held, by job id.
    held: dict[str, JobRecord]
    waiting: dict[str, JobRecord]
    placed: dict[str, JobRecord]
    #: Those that were found to wait, in their order.
    ahead: list[JobRecord] = field(default_factory=list)
    #: The limits that keep jobs waiting, and whether they are of GPUs, else of jobs.
    limited: list[tuple[Limit, bool]] = field(default_factory=list)

    @classmethod
    def of(cls, attack: Attack, step: Transition) -> "Look":
        """The state before what a step has placed."""
        scheduler, cluster = attack.scheduler, attack.cluster.copy()
        placed = {job.job_id: job for job in placed_in(step)}
        for job in placed.values():
            cluster.release(job.job_id, job.placement)
        return cls(
            attack.world.rules,
            cluster,
            {name: job for name, job in scheduler.holding.items() if name not in placed},
            {
                job.job_id: job
                for job in scheduler.jobs.values()
                if job.status is Status.QUEUED or job.job_id in placed
            },
            placed,
        )

    def turns(self) -> Iterator[JobRecord]:
        """Those that have a turn, in order; whoever was placed holds it from then on."""
        left = dict(self.waiting)
        while left:
            job = min(left.values(), key=self.turn_of)
            del left[job.job_id]
            if not self.is_possible(job) or self.is_limited(job):
                assert job.job_id not in self.placed, f"{job.job_id} passes a limit"
                continue
            yield job
            if job.job_id in self.placed:
                placed = self.placed[job.job_id]
                self.cluster.allocate(job.job_id, placed.placement)
                self.held[job.job_id] = placed
            else:
                self.ahead.append(job)

    def turn_of(self, job: JobRecord, *, after: int = 0) -> Turn:
        """Whose turn comes first: by priority, fair shares, age. In a fair queue, as it is once so
        many that are alike have started."""
        order = self.rules.queue(job.queue_name).order
        urgency = -5 if order is QueueOrder.AGE else -job.priority
        used = self.used(job, more=after) if order is QueueOrder.FAIR else (0.0, 0.0, 0.0)
        return urgency, used, job.created_at, job.job_id

    def alike_of(self, job: JobRecord) -> tuple[object, ...]:
        """What jobs have in common of which none starts while an older one waits."""
        return self.rules.account_of(job), job.resource_request, job.max_runtime

    def used(self, job: JobRecord, *, more: int = 0) -> Used:
        """What its tenant holds of its queue for each share, with so many more that are alike."""
        shares = self.rules.tenant(job.tenant_id).shares
        own = [
            other
            for other in self.held.values()
            if (other.queue_name, other.tenant_id) == (job.queue_name, job.tenant_id)
        ]
        gpus = sum(len(share.gpus) for other in own for share in other.placement)
        cpus = sum(share.cpus for other in own for share in other.placement)
        request = job.resource_request
        gpus += more * request.nodes * request.gpus
        cpus += more * request.nodes * request.cpus
        return gpus / shares, cpus / shares, (len(own) + more) / shares

    def usable(self, job: JobRecord) -> set[str]:
        """The nodes that could give what it asks of one, if they were empty."""
        return {
            node.spec.node_id
            for node in self.cluster.nodes.values()
            if node.takes_jobs and node.fits_empty(job.resource_request)
        }

    def is_possible(self, job: JobRecord) -> bool:
        """Whether the nodes that take jobs could have it."""
        never = self.rules.never(job)
        return not never and len(self.usable(job)) >= job.resource_request.nodes

    def is_limited(self, job: JobRecord) -> bool:
        """Whether it would exceed a limit, or comes behind one that would."""
        if any(
            limit.covers(job) and (job.resource_request.gpus or not of_gpus)
            for limit, of_gpus in self.limited
        ):
            return True
        before = len(self.limited)
        for limit in self.rules.limits_of(job):
            held = [other for other in self.held.values() if limit.covers(other)]
            gpus = sum(len(share.gpus) for other in held for share in other.placement)
            more, limits = total_gpus(job.resource_request), limit.limits
            if limits.jobs is not None and len(held) >= limits.jobs:
                self.limited.append((limit, False))
            elif more and limits.gpus is not None and gpus + more > limits.gpus:
                self.limited.append((limit, True))
        return len(self.limited) > before
