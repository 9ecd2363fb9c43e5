"""What is held of the nodes from now on, if every run ends at its limit: where a job with a limit
fits between others, and from when those ahead have their room.

Times are microseconds from now.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from app.coordinator.cluster.nodes import Cluster, NodeState, suits
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest, StopReason
from app.coordinator.jobs.states import RUNNING, Status

#: The end of what has none.
FOREVER: Final = 2**63
#: Moments that are tried for a job's start; beyond, it is not known.
_MOST_MOMENTS: Final = 256


@dataclass(frozen=True, slots=True)
class _Span:
    """A share of a node, from and until when it is held."""

    start: int
    end: int
    share: Allocation


@dataclass(frozen=True, slots=True)
class Reservation:
    """Where and when a job starts at the latest, if every run ends at its limit."""

    start: int
    placement: tuple[Allocation, ...]


def end_of(job: JobRecord, *, ran: int) -> int:
    """When a job that holds resources gives them back at the latest; `ran` is how long its run
    has gone on. The end of what is being stopped is taken to be near."""
    if job.stop_reason is not StopReason.NONE or job.status is Status.EXPORTING:
        return 1
    if not job.max_runtime:
        return FOREVER
    return max(job.max_runtime - (ran if job.status in RUNNING else 0), 1)


class Timeline:
    """What is held of each node."""

    def __init__(
        self, cluster: Cluster, holding: Iterable[JobRecord], ran: Callable[[JobRecord], int]
    ) -> None:
        self._cluster = cluster
        self._spans: dict[str, list[_Span]] = {}
        for job in holding:
            self.take(job.placement, 0, end_of(job, ran=ran(job)))

    def take(self, placement: Iterable[Allocation], start: int, end: int) -> None:
        """Hold these shares."""
        for share in placement:
            self._spans.setdefault(share.node_id, []).append(_Span(start, end, share))

    def fit(
        self, node: NodeState, resource_request: ResourceRequest, start: int, end: int
    ) -> Allocation | None:
        """The share of a node that is free all the time, without numbers of cores; the node can
        give it when it is empty."""
        spec = node.spec
        spans = [
            span
            for span in self._spans.get(spec.node_id, ())
            if span.start < end and span.end > start
        ]
        gpus: list[int] = []
        if resource_request.gpus:
            taken = {index for span in spans for index in span.share.gpus}
            gpus = [
                index
                for index, gpu in enumerate(spec.gpus)
                if index not in taken and suits(gpu, resource_request)
            ]
            if len(gpus) < resource_request.gpus:
                return None
            # What is free now is left to those who can use it until then.
            gpus.sort(key=lambda index: (index not in node.taken_gpus, spec.gpus[index].memory))
        if not resource_request.cpus and len(spans) < spec.cpus and not resource_request.memory:
            moments: set[int] = set()
        else:
            moments = {start, *(span.start for span in spans if span.start > start)}
        for at in moments:
            shares = [span.share for span in spans if span.start <= at < span.end]
            if not _has(node, resource_request, shares):
                return None
        return Allocation(
            spec.node_id,
            tuple(sorted(gpus[: resource_request.gpus])),
            resource_request.cpus,
            resource_request.memory,
        )

    def taken_gpus(self, node_id: str, end: int) -> Collection[int]:
        """The GPUs of a node that are held, or will be before `end`."""
        spans = self._spans.get(node_id, ())
        return {index for span in spans if span.start < end for index in span.share.gpus}

    def earliest(
        self, resource_request: ResourceRequest, usable: Collection[str], length: int
    ) -> Reservation | None:
        """When and where a request fits first for so long; None if that cannot be said."""
        nodes = [self._cluster.nodes[node_id] for node_id in usable]
        # What a node has left changes at the ends of its own spans, and with what is reserved.
        changing: dict[int, list[NodeState]] = {0: nodes}
        reserved = []
        for node in nodes:
            spans = self._spans.get(node.spec.node_id, ())
            for end in {span.end for span in spans if span.end < FOREVER}:
                changing.setdefault(end, []).append(node)
            if any(span.start for span in spans):
                reserved.append(node)
        shares: dict[str, Allocation] = {}
        for start in sorted(changing)[: _MOST_MOMENTS + 1]:
            end = min(start + length, FOREVER)
            for node in (*changing[start], *reserved):
                share = self.fit(node, resource_request, start, end)
                if share is None:
                    shares.pop(node.spec.node_id, None)
                else:
                    shares[node.spec.node_id] = share
            if len(shares) >= resource_request.nodes:
                placement = self._cluster.place(
                    resource_request, among=shares, fit=partial(_known, shares)
                )
                assert placement is not None
                return Reservation(start, placement)
        return None


def _known(shares: Mapping[str, Allocation], node: NodeState) -> Allocation:
    return shares[node.spec.node_id]


def _has(node: NodeState, resource_request: ResourceRequest, shares: Sequence[Allocation]) -> bool:
    """Whether a node has what is asked for, but for GPUs, beside these shares."""
    spec = node.spec
    return (
        sum(share.cpus for share in shares) + resource_request.cpus <= spec.cpus
        and sum(share.memory for share in shares) + resource_request.memory <= spec.memory
        and (bool(resource_request.cpus) or sum(not share.cpus for share in shares) < spec.cpus)
    )
