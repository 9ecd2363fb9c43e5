"""The nodes of the cluster, what is free on them, and where a job fits. Does no I/O."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from app.coordinator.cluster.node_specs import GpuSpec, NodeReport, NodeSpec
from app.coordinator.jobs.model import Allocation, ResourceRequest

#: Requests whose nodes are remembered.
_MOST_REMEMBERED: Final = 1024


@dataclass(slots=True)
class NodeState:
    """A node and what is taken of it."""

    spec: NodeSpec
    #: Why nothing can start there, as the engine reports it; empty if it can.
    problem: str = ""
    #: Why it takes no new jobs; None while it takes them.
    drain: str | None = None
    taken_cpus: int = 0
    taken_memory: int = 0
    taken_gpus: set[int] = field(default_factory=set)
    taken_cores: set[int] = field(default_factory=set)
    #: Jobs here that asked for no cores, and use what is idle. They take no cores from
    #: others, but there are never more of them than cores: each needs memory and a turn.
    idlers: int = 0
    job_ids: set[str] = field(default_factory=set)

    @property
    def takes_jobs(self) -> bool:
        """Whether new jobs may be placed here."""
        return self.drain is None and not self.problem

    def fits_empty(self, resource_request: ResourceRequest) -> bool:
        """Whether an empty node of this kind has what `resource_request` asks of one node."""
        spec = self.spec
        return (
            (not resource_request.node_ids or spec.node_id in resource_request.node_ids)
            and all(spec.labels.get(key) == value for key, value in resource_request.selector)
            and resource_request.cpus <= spec.cpus
            and resource_request.memory <= spec.memory
            and resource_request.gpus <= len(spec.gpus)
            and (
                not (resource_request.gpu_type or resource_request.gpu_memory)
                or resource_request.gpus
                <= sum(1 for gpu in spec.gpus if suits(gpu, resource_request))
            )
        )

    def free_gpus(self, resource_request: ResourceRequest) -> list[int]:
        """Return the indices of the free GPUs that suit a request, those with the least memory
        first."""
        gpus = self.spec.gpus
        free = [
            index
            for index, gpu in enumerate(gpus)
            if index not in self.taken_gpus and suits(gpu, resource_request)
        ]
        return sorted(free, key=lambda index: gpus[index].memory)

    def try_fit(
        self, resource_request: ResourceRequest, *, avoid: Collection[int] = frozenset()
    ) -> Allocation | None:
        """Return what this node can allocate now, without the GPUs in `avoid`, or None. Allocates
        nothing."""
        spec = self.spec
        # What refuses most is asked first.
        if self.taken_cpus + resource_request.cpus > spec.cpus:
            return None
        if len(self.taken_gpus) + resource_request.gpus > len(spec.gpus):
            return None
        if not self.takes_jobs or not self.fits_empty(resource_request):
            return None
        if not resource_request.cpus and self.idlers >= spec.cpus:
            return None
        if self.taken_memory + resource_request.memory > spec.memory:
            return None
        free: list[int] = []
        if resource_request.gpus:
            free = [index for index in self.free_gpus(resource_request) if index not in avoid]
            if len(free) < resource_request.gpus:
                return None
        cores = (core for core in range(spec.cpus) if core not in self.taken_cores)
        return Allocation(
            spec.node_id,
            tuple(sorted(free[: resource_request.gpus])),
            resource_request.cpus,
            resource_request.memory,
            tuple(islice(cores, resource_request.cpus)),
        )


def suits(gpu: GpuSpec, resource_request: ResourceRequest) -> bool:
    """Whether a GPU has the type and the memory that are asked for."""
    return (
        not resource_request.gpu_type or gpu.type == resource_request.gpu_type
    ) and gpu.memory >= resource_request.gpu_memory


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a node can allocate to a request."""

    node: NodeSpec
    allocation: Allocation
    #: How much of the node is left, and its name: what is taken first is least.
    spare: tuple[int, int, int, str]


def _spare(node: NodeState, resource_request: ResourceRequest) -> tuple[int, int, int, str]:
    spec = node.spec
    gpus = (
        len(node.free_gpus(resource_request))
        if resource_request.gpus
        else len(spec.gpus) - len(node.taken_gpus)
    )
    cpus = spec.cpus - node.taken_cpus
    return (
        gpus,
        len(spec.gpus),
        cpus if resource_request.cpus else node.idlers - cpus,
        spec.node_id,
    )


class Cluster:
    """The nodes by id. Whoever allocates resources releases them."""

    def __init__(
        self, specs: Iterable[NodeSpec], *, topology: str = "", growing: bool = False
    ) -> None:
        """`topology` is the label of nodes that are close to each other; empty if none says so.
        With `growing`, nodes of any kind may be added when jobs wait for them."""
        self.nodes = {spec.node_id: NodeState(spec) for spec in specs}
        self._topology = topology
        #: Whether nodes of any kind may be added.
        self.growing = growing
        #: Grows with each change of what the empty nodes could take.
        self.version = 0
        #: What `usable` has found since then.
        self._usable: dict[ResourceRequest, frozenset[str]] = {}
        self._usable_sets: dict[frozenset[str], frozenset[str]] = {}
        self._usable_of = 0
        #: The most free GPUs and cores of a node that takes jobs; None until somebody asks.
        self._most_free: tuple[int, int] | None = None
        #: Why nodes are drained that are not there at the moment.
        self._absent_drains: dict[str, str] = {}

    def copy(self) -> "Cluster":
        """A copy to try things on."""
        twin = Cluster((), topology=self._topology, growing=self.growing)
        twin.nodes = {
            node_id: NodeState(
                node.spec,
                node.problem,
                node.drain,
                node.taken_cpus,
                node.taken_memory,
                set(node.taken_gpus),
                set(node.taken_cores),
                node.idlers,
                set(node.job_ids),
            )
            for node_id, node in self.nodes.items()
        }
        return twin

    def set_drain(self, node_id: str, reason: str | None) -> None:
        """Drain a node, which then takes no new jobs, for a reason that may be empty; None
        enables it."""
        self.nodes[node_id].drain = reason
        self.version += 1
        self._most_free = None

    def restore_drain(self, node_id: str, reason: str) -> None:
        """Drain a node that may not be there yet."""
        if node_id in self.nodes:
            self.set_drain(node_id, reason)
        else:
            self._absent_drains[node_id] = reason

    def reports(self) -> tuple[NodeReport, ...]:
        """Return the nodes as `set_nodes` takes them."""
        return tuple(NodeReport(node.spec, node.problem) for node in self.nodes.values())

    def set_nodes(self, reports: Iterable[NodeReport]) -> None:
        """Have these nodes. Drains are kept, also for the time in which a node is not there.

        What is taken of a node that is new is up to the caller. One that is not
        among `reports` goes if no job is on it; otherwise it stays, with a problem.
        """
        self.version += 1
        self._most_free = None
        known, absent = self.nodes, self._absent_drains
        self.nodes = {}
        for report in reports:
            node_id = report.spec.node_id
            if (node := known.pop(node_id, None)) is None:
                node = NodeState(report.spec, drain=absent.pop(node_id, None))
            node.spec, node.problem = report.spec, report.problem
            self.nodes[node_id] = node
        for node_id, node in known.items():
            if node.job_ids:
                node.problem = "It is no longer part of the cluster."
                self.nodes[node_id] = node
            elif node.drain is not None:
                absent[node_id] = node.drain

    def usable(self, resource_request: ResourceRequest) -> frozenset[str]:
        """The nodes that take jobs and, empty, could give what is asked of one node."""
        if self._usable_of != self.version or len(self._usable) >= _MOST_REMEMBERED:
            self._usable_of = self.version
            self._usable.clear()
            self._usable_sets.clear()
        known = self._usable.get(resource_request)
        if known is None:
            found = frozenset(
                node.spec.node_id
                for node in self.nodes.values()
                if node.takes_jobs and node.fits_empty(resource_request)
            )
            # Most requests can use the same nodes.
            known = self._usable[resource_request] = self._usable_sets.setdefault(found, found)
        return known

    def satisfiable(self, resource_request: ResourceRequest) -> bool:
        """Whether the whole cluster, empty and with every node enabled, has what is asked, or may
        have it once it has grown."""
        return self.growing or self.has(resource_request)

    def has(self, resource_request: ResourceRequest) -> bool:
        """Whether the nodes that there are have what is asked, empty and enabled."""
        # A copy: a submission is checked in a thread while nodes come and go.
        nodes = tuple(self.nodes.values())
        able = sum(1 for node in nodes if node.fits_empty(resource_request))
        return able >= resource_request.nodes

    def place(
        self,
        resource_request: ResourceRequest,
        *,
        without: Collection[str] = frozenset(),
        among: Iterable[str] | None = None,
        fit: Callable[[NodeState], Allocation | None] | None = None,
    ) -> tuple[Allocation, ...] | None:
        """Where all of the request fits now, nodes in `without` left out; None if nowhere. Only
        nodes in `among` are looked at, if that is given.

        `fit` says what a node can allocate, in place of its `try_fit`.

        Takes the nodes that have the least to spare, so that large jobs find
        room on the others; a job that uses idle cores goes where most are idle.
        Several nodes have the same value of the topology's label where enough of
        them do; of such values, the one with the fewest nodes to choose from.
        """
        if fit is None and not self._may_fit(resource_request):
            return None
        offers = [
            _Offer(node.spec, allocation, _spare(node, resource_request))
            for node in (
                self.nodes.values() if among is None else (self.nodes[node_id] for node_id in among)
            )
            if node.spec.node_id not in without
            and (allocation := (fit(node) if fit else node.try_fit(resource_request))) is not None
        ]
        if len(offers) < resource_request.nodes:
            return None
        if self._topology and resource_request.nodes > 1:
            offers = self._close_together(offers, resource_request.nodes)
        offers.sort(key=lambda offer: offer.spare)
        return tuple(offer.allocation for offer in offers[: resource_request.nodes])

    def _may_fit(self, resource_request: ResourceRequest) -> bool:
        """Whether some node has as many free GPUs and cores: most that fit nowhere do not find
        that."""
        if self._most_free is None:
            able = [node for node in self.nodes.values() if node.takes_jobs]
            self._most_free = (
                max((len(node.spec.gpus) - len(node.taken_gpus) for node in able), default=0),
                max((node.spec.cpus - node.taken_cpus for node in able), default=0),
            )
        gpus, cpus = self._most_free
        return resource_request.gpus <= gpus and resource_request.cpus <= cpus

    def _close_together(self, offers: list[_Offer], count: int) -> list[_Offer]:
        """Those of one value of the label that suffice, or all."""
        by_value: dict[str, list[_Offer]] = {}
        for offer in offers:
            if value := offer.node.labels.get(self._topology):
                by_value.setdefault(value, []).append(offer)
        enough = [(len(found), value) for value, found in by_value.items() if len(found) >= count]
        return by_value[min(enough)[1]] if enough else offers

    def allocate(self, job_id: str, placement: Iterable[Allocation]) -> None:
        """Take these shares for a job; a node that is no longer configured is skipped.

        Raises ValueError if a share is not free; then none is taken.
        """
        pairs = [(self.nodes[s.node_id], s) for s in placement if s.node_id in self.nodes]
        for number, (node, allocation) in enumerate(pairs):
            taken_twice = node.taken_gpus & set(allocation.gpus) or node.taken_cores & set(
                allocation.cores
            )
            named_twice = any(other is node for other, _ in pairs[:number])
            if job_id in node.job_ids or taken_twice or named_twice:
                raise ValueError(f"node {allocation.node_id} gave the same thing twice")
        self._most_free = None
        for node, allocation in pairs:
            node.job_ids.add(job_id)
            node.taken_gpus.update(allocation.gpus)
            node.taken_cores.update(allocation.cores)
            node.taken_cpus += allocation.cpus
            node.taken_memory += allocation.memory
            node.idlers += not allocation.cpus

    def release(self, job_id: str, placement: Iterable[Allocation]) -> None:
        """Undo `allocate`."""
        self._most_free = None
        for allocation in placement:
            node = self.nodes.get(allocation.node_id)
            if node is None:
                continue
            node.job_ids.remove(job_id)
            node.taken_gpus.difference_update(allocation.gpus)
            node.taken_cores.difference_update(allocation.cores)
            node.taken_cpus -= allocation.cpus
            node.taken_memory -= allocation.memory
            node.idlers -= not allocation.cpus

    def release_all(self) -> None:
        """Undo every `allocate`."""
        self._most_free = None
        for node in self.nodes.values():
            node.job_ids.clear()
            node.taken_gpus.clear()
            node.taken_cores.clear()
            node.taken_cpus = node.taken_memory = node.idlers = 0

    def validate(self) -> None:
        """Raise AssertionError if more is taken than there is."""
        for node in self.nodes.values():
            assert 0 <= node.taken_cpus <= node.spec.cpus, node
            assert 0 <= node.taken_memory <= node.spec.memory, node
            assert len(node.taken_cores) <= node.taken_cpus, node
            assert 0 <= node.idlers <= len(node.job_ids), node
            assert all(0 <= index < len(node.spec.gpus) for index in node.taken_gpus), node
            assert bool(node.job_ids) or not (node.taken_cpus or node.taken_gpus), node
