"""What is promised to jobs that wait, for which runs are being stopped: nobody else is given that.

A promise is a start that is certain but for its time. From the moment at which it is made, limits,
shares and plans count it as held. It is kept until the job starts, leaves the queue, or its place
is lost. A job that was there when it was made never takes it, though it comes first.
"""

from collections.abc import Collection, Sequence
from typing import Final

from app.coordinator.cluster.nodes import Cluster, NodeState
from app.coordinator.jobs.model import Allocation, JobRecord, Promise, ResourceRequest
from app.coordinator.scheduling.job_changes import is_ending
from app.coordinator.scheduling.job_table import JobTable

WAITING: Final = "Waiting in the queue."
_STOPPING: Final = "Runs are being stopped to make room for it."


class Promises:
    """The open promises, and what fits beside them. A look costs what is on the node."""

    def __init__(self, table: JobTable, *, without: Collection[str] = ()) -> None:
        """Those of the jobs in `without` are left out."""
        self._table = table
        self._on: dict[str, list[tuple[JobRecord, Allocation]]] = {}
        #: Who has one.
        self.jobs = [job for job in table.promised.values() if job.job_id not in without]
        for job in self.jobs:
            for share in shares_of(job):
                self._on.setdefault(share.node_id, []).append((job, share))
        self._settled: dict[str, NodeState] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.jobs)

    def on(self, node_id: str) -> Sequence[tuple[JobRecord, Allocation]]:
        """The shares of a node that are promised, and to whom."""
        return self._on.get(node_id, ())

    def gpus_on(self, node_id: str) -> frozenset[int]:
        """The GPUs of a node that are promised."""
        return frozenset(gpu for _, share in self.on(node_id) for gpu in share.gpus)

    def first_on(self, usable: Collection[str]) -> JobRecord | None:
        """The first job to which something of these nodes is promised."""
        for job in self.jobs:
            if any(share.node_id in usable for share in shares_of(job)):
                return job
        return None

    def place(self, resource_request: ResourceRequest) -> tuple[Allocation, ...] | None:
        """Where all of a request fits now without taking what is promised; None if nowhere."""
        cluster = self._table.cluster
        usable = cluster.usable(resource_request)
        free = cluster.place(resource_request, among=usable)
        if free is None or not self.jobs:
            return free
        return cluster.place(
            resource_request, among=usable, fit=lambda node: self.fit(node, resource_request)
        )

    def fit(
        self,
        node: NodeState,
        resource_request: ResourceRequest,
        *,
        avoid: Collection[int] = frozenset(),
    ) -> Allocation | None:
        """What a node can allocate now without taking what is promised, nor GPUs in `avoid`."""
        node_id = node.spec.node_id
        if node_id not in self._on:
            return node.try_fit(resource_request, avoid=avoid)
        share = node.try_fit(resource_request, avoid=self.gpus_on(node_id).union(avoid))
        if share is None or not can_hold(self._settled_node(node), share):
            return None
        return share

    def placed(self, job: JobRecord) -> None:
        """Note that a job has been placed."""
        for share in job.placement:
            self._settled.pop(share.node_id, None)

    def _settled_node(self, node: NodeState) -> NodeState:
        """The node once what is being stopped has ended and all promises are kept."""
        node_id = node.spec.node_id
        settled = self._settled.get(node_id)
        if settled is None:
            settled = self._settled[node_id] = settled_node(self._table, node)
            for _, share in self.on(node_id):
                hold(settled, share)
        return settled


def shares_of(job: JobRecord) -> tuple[Allocation, ...]:
    """What a job is promised."""
    return job.promise.shares if job.promise is not None else ()


def settled_node(table: JobTable, node: NodeState) -> NodeState:
    """A node once what is being stopped has ended; nothing that is promised is taken of it."""
    settled = NodeState(node.spec, node.problem, node.drain)
    for job_id in node.job_ids:
        job = table.jobs[job_id]
        if not is_ending(job):
            for share in job.placement:
                if share.node_id == node.spec.node_id:
                    hold(settled, share)
    return settled


def can_hold(node: NodeState, share: Allocation) -> bool:
    """Whether a share is free on a node, whichever cores it has."""
    spec = node.spec
    return (
        node.takes_jobs
        and node.taken_cpus + share.cpus <= spec.cpus
        and node.taken_memory + share.memory <= spec.memory
        and (bool(share.cpus) or node.idlers < spec.cpus)
        and node.taken_gpus.isdisjoint(share.gpus)
        and all(gpu < len(spec.gpus) for gpu in share.gpus)
    )


def hold(node: NodeState, share: Allocation) -> None:
    """Take a share, whichever cores it has."""
    node.taken_cpus += share.cpus
    node.taken_memory += share.memory
    node.taken_gpus.update(share.gpus)
    node.idlers += not share.cpus


def placement_of(cluster: Cluster, job: JobRecord) -> tuple[Allocation, ...] | None:
    """Where a job starts that is promised a place; None while that is not free."""
    placement = []
    for share in shares_of(job):
        node = cluster.nodes[share.node_id]
        others = frozenset(range(len(node.spec.gpus))).difference(share.gpus)
        own = node.try_fit(job.resource_request, avoid=others)
        if own is None:
            return None
        placement.append(own)
    return tuple(placement)


def lost(table: JobTable, jobs: Sequence[JobRecord], *, kept: Sequence[JobRecord]) -> list[str]:
    """Those of `jobs` whose promises cannot be kept, beside those of `kept` and of each other: the
    first come first."""
    settled: dict[str, NodeState] = {}

    def node_of(share: Allocation) -> NodeState | None:
        node = table.cluster.nodes.get(share.node_id)
        if node is not None and share.node_id not in settled:
            settled[share.node_id] = settled_node(table, node)
        return settled.get(share.node_id)

    for job in kept:
        for share in shares_of(job):
            if (node := node_of(share)) is not None:
                hold(node, share)
    found = []
    for job in jobs:
        pairs = [(node_of(share), share) for share in shares_of(job)]
        usable = table.cluster.usable(job.resource_request)
        if all(
            node is not None and share.node_id in usable and can_hold(node, share)
            for node, share in pairs
        ):
            for node, share in pairs:
                assert node is not None
                hold(node, share)
        else:
            found.append(job.job_id)
    return found


def make_promise(table: JobTable, job: JobRecord, shares: Sequence[Allocation]) -> JobRecord:
    """Promise a job these shares."""
    promise = Promise(
        tuple(Allocation(share.node_id, share.gpus, share.cpus, share.memory) for share in shares),
        newest_job=table.newest_creation,
    )
    return table.transition(job, None, _STOPPING, promise=promise)


def drop_promise(table: JobTable, job_id: str) -> JobRecord:
    """Promise a job nothing any more: it waits for its turn."""
    return table.transition(table.jobs[job_id], None, WAITING, promise=None)
