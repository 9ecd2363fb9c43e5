"""A walk over all that waits, as the documents have it: by brute force, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from app.coordinator.cluster.nodes import Cluster, NodeState
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest, StopReason
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

    attack: Attack
    step: Transition
    rules: SchedulingRules
    cluster: Cluster
    #: What is held, by job id.
    held: dict[str, JobRecord]
    waiting: dict[str, JobRecord]
    placed: dict[str, JobRecord]
    #: What is promised, by job id; of those that started where they were promised, too.
    promised: dict[str, JobRecord]
    #: Those of `placed` who had a promise before and have not had their turn, by job id: limits and
    #: shares counted them as held already, also where they start elsewhere.
    counted: dict[str, JobRecord]
    #: What is about to be given back, by job id.
    ending: frozenset[str]
    #: Those that were found to wait, in their order.
    ahead: list[JobRecord] = field(default_factory=list)
    #: The limits that keep jobs waiting, and whether they are of GPUs, else of jobs.
    limited: list[tuple[Limit, bool]] = field(default_factory=list)

    @classmethod
    def of(cls, attack: Attack, step: Transition, *, only: str = "", then: bool = False) -> "Look":
        """The state before what a step has placed, or before one job of these alone: as it would
        be last, or with `then`, as it was when those had not been placed that were after it."""
        scheduler, cluster = attack.scheduler, attack.cluster.copy()
        moved = [job for job in placed_in(step) if not _keeps(step.before[job.job_id], job)]
        names = [job.job_id for job in moved]
        later = set(names[names.index(only) + 1 :]) if then else set[str]()
        placed = {job.job_id: job for job in moved if only in ("", job.job_id)}
        for job in moved:
            if job.job_id in placed or job.job_id in later:
                cluster.release(job.job_id, job.placement)
        promised = {name: job for name, job in scheduler.jobs.items() if job.promise}
        return cls(
            attack,
            step,
            attack.world.rules,
            cluster,
            {
                name: job
                for name, job in (*scheduler.holding.items(), *promised.items())
                if name not in placed and name not in later
            },
            {
                job.job_id: job
                for job in scheduler.jobs.values()
                if (job.status is Status.QUEUED and not job.promise)
                or job.job_id in placed
                or job.job_id in later
            },
            placed,
            promised,
            {
                name: before
                for name in [*placed, *later]
                if (before := step.before[name]) is not None and before.promise is not None
            },
            frozenset(
                name
                for name, job in scheduler.holding.items()
                if job.stop_reason is not StopReason.NONE or job.status is Status.EXPORTING
            ),
        )

    def place(self, request: ResourceRequest) -> tuple[Allocation, ...] | None:
        """Where a request fits beside what is held, and beside what is promised."""
        return self.cluster.place(request, fit=lambda node: self.fit(node, request))

    def fit(self, node: NodeState, request: ResourceRequest) -> Allocation | None:
        """What a node can give beside what is held, and beside what is promised."""
        promised = [
            share
            for job in self.promised.values()
            for share in shares_of(job)
            if share.node_id == node.spec.node_id
        ]
        gpus = {gpu for share in promised for gpu in share.gpus}
        share = node.try_fit(request, avoid=gpus)
        if share is None or not promised:
            return share
        later = [
            each
            for name, job in self.held.items()
            if name not in self.ending
            for each in shares_of(job)
            if each.node_id == node.spec.node_id
        ]
        spec, later = node.spec, [*later, share]
        return (
            share
            if sum(each.cpus for each in later) <= spec.cpus
            and sum(each.memory for each in later) <= spec.memory
            and sum(not each.cpus for each in later) <= spec.cpus
            else None
        )

    def turns(self) -> Iterator[JobRecord]:
        """Those that have a turn, in order; whoever was placed holds it from then on."""
        left = dict(self.waiting)
        while left:
            job = min(left.values(), key=self.turn_of)
            del left[job.job_id]
            if job.job_id in self.counted:
                if job.job_id not in self.placed:
                    continue
                yield job
                self._start(job)
                continue
            if not self.is_possible(job) or self.is_limited(job):
                if job.job_id in self.placed:
                    assert self._starts_last(job), f"{job.job_id} passes a limit"
                    self._start(job)
                continue
            yield job
            if job.job_id in self.placed:
                self._start(job)
            else:
                self.ahead.append(job)

    def _start(self, job: JobRecord) -> None:
        placed = self.placed[job.job_id]
        self.cluster.allocate(job.job_id, placed.placement)
        self.held[job.job_id] = placed
        self.counted.pop(job.job_id, None)

    def _starts_last(self, job: JobRecord) -> bool:
        """Whether a job passes no limit once all others have started that a step has placed: all
        that waits is looked at again then, and some hold up others no more."""
        if len(self.placed) == 1:
            return False
        last = Look.of(self.attack, self.step, only=job.job_id)
        return any(other.job_id == job.job_id for other in last.turns())

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
            for other in (*self.held.values(), *self.counted.values())
            if (other.queue_name, other.tenant_id) == (job.queue_name, job.tenant_id)
        ]
        gpus = sum(len(share.gpus) for other in own for share in shares_of(other))
        cpus = sum(share.cpus for other in own for share in shares_of(other))
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
            held = [
                other
                for other in (*self.held.values(), *self.counted.values())
                if limit.covers(other)
            ]
            gpus = sum(len(share.gpus) for other in held for share in shares_of(other))
            more, limits = total_gpus(job.resource_request), limit.limits
            if limits.jobs is not None and len(held) >= limits.jobs:
                self.limited.append((limit, False))
            elif more and limits.gpus is not None and gpus + more > limits.gpus:
                self.limited.append((limit, True))
        return len(self.limited) > before


def shares_of(job: JobRecord) -> tuple[Allocation, ...]:
    """What a job holds, or is promised."""
    return job.placement or (job.promise.shares if job.promise is not None else ())


def _keeps(before: JobRecord | None, job: JobRecord) -> bool:
    """Whether a job has started where it was promised a place."""
    if before is None or before.promise is None:
        return False
    own = [(share.node_id, share.gpus) for share in job.placement]
    return own == [(share.node_id, share.gpus) for share in before.promise.shares]
