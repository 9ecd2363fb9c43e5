"""What is held of the nodes from now on, if every run ends when it is expected to: where a job fits
between others, and from when those ahead have their room.

Times are microseconds from now.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Final

from app.coordinator.cluster.nodes import Cluster, NodeState
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest, StopReason
from app.coordinator.jobs.states import RUNNING, Status
from app.coordinator.scheduling.backfill.profile import FOREVER, Amounts, Profile, Window
from app.coordinator.scheduling.preemption.promises import Promises

#: When what is being stopped has ended: soon.
STOPPED: Final = 1


@dataclass(frozen=True, slots=True)
class Reservation:
    """Where and when a job starts at the latest, and what it takes of each node."""

    start: int
    shares: Mapping[str, Amounts]


def end_of(job: JobRecord, *, ran: int) -> int:
    """When a job that holds resources gives them back at the latest; `ran` is how long its run
    has gone on. The end of what is being stopped is taken to be near."""
    if job.stop_reason is not StopReason.NONE or job.status is Status.EXPORTING:
        return STOPPED
    if not job.max_runtime:
        return FOREVER
    return max(job.max_runtime - (ran if job.status in RUNNING else 0), 1)


class Timeline:
    """What is held of each node. A look costs the number of what is held of those it looks at."""

    def __init__(
        self,
        cluster: Cluster,
        jobs: Mapping[str, JobRecord],
        end: Callable[[JobRecord], int],
        promises: Promises | None = None,
    ) -> None:
        """`jobs` has those that hold something, and `end` says until when. What is promised is held
        from when what is being stopped has ended."""
        self._cluster = cluster
        self._jobs = jobs
        self._end = end
        self._promises = promises
        self._profiles: dict[str, Profile] = {}

    def _profile(self, node_id: str) -> Profile:
        profile = self._profiles.get(node_id)
        if profile is None:
            node = self._cluster.nodes[node_id]
            held = [
                (share, self._end(job))
                for job in map(self._jobs.__getitem__, node.job_ids)
                for share in job.placement
                if share.node_id == node_id
            ]
            profile = self._profiles[node_id] = Profile(node.spec, held)
            for promised, share in self._promises.on(node_id) if self._promises else ():
                end = min(STOPPED + (promised.max_runtime or FOREVER), FOREVER)
                profile.take(profile.amounts_of(share), STOPPED, end)
        return profile

    def reserve(self, reservation: Reservation, length: int) -> None:
        """Hold what is reserved for so long."""
        end = min(reservation.start + length, FOREVER)
        for node_id, amounts in reservation.shares.items():
            self._profile(node_id).take(amounts, reservation.start, end)

    def fit_now(
        self, node: NodeState, resource_request: ResourceRequest, length: int
    ) -> Allocation | None:
        """The share that a node can give now, and for so long."""
        promised: Collection[int] = ()
        if self._promises:
            promised = self._promises.gpus_on(node.spec.node_id)
        share = node.try_fit(resource_request, avoid=promised)
        if share is None:
            return None
        profile = self._profile(node.spec.node_id)
        window = profile.window(resource_request, length, start=0, before=1)
        if window is None:
            return None
        if profile.amounts_of(share) == window.amounts:
            return share
        avoid = profile.beyond(window.amounts, node.taken_gpus.union(promised))
        return node.try_fit(resource_request, avoid=avoid.union(promised))

    def earliest(
        self,
        resource_request: ResourceRequest,
        usable: Collection[str],
        length: int,
        *,
        start: int = 0,
    ) -> Reservation | None:
        """When and where a request fits first for so long, from `start` on; None if that cannot be
        said. Empty, the nodes have what is asked for."""
        fitting: dict[str, Window] = {}
        if resource_request.nodes == 1:
            before = FOREVER
            for node_id in usable:
                window = self._profile(node_id).window(
                    resource_request, length, start=start, before=before
                )
                if window is not None:
                    fitting[node_id] = window
                    before = min(before, window.first + 1)
            begin = before - 1
        else:
            begin = self._together(resource_request, usable, length, start, fitting)
        shares = {
            node_id: window.amounts
            for node_id, window in fitting.items()
            if window.first <= begin <= window.last
        }
        if len(shares) < resource_request.nodes:
            return None
        placement = self._cluster.place(
            resource_request, among=shares, fit=partial(_reserved, resource_request)
        )
        assert placement is not None
        return Reservation(begin, {share.node_id: shares[share.node_id] for share in placement})

    def _together(
        self,
        resource_request: ResourceRequest,
        usable: Collection[str],
        length: int,
        start: int,
        fitting: dict[str, Window],
    ) -> int:
        """The first moment at which enough nodes fit at once, and `fitting` those of them: from
        the first window of each, those that close too early are replaced by the next."""
        opening: list[tuple[int, str]] = []
        for node_id in usable:
            window = self._profile(node_id).window(resource_request, length, start=start)
            if window is not None:
                fitting[node_id] = window
                opening.append((window.first, node_id))
        heapify(opening)
        closing: list[tuple[int, str]] = []
        while opening:
            moment = opening[0][0]
            while opening and opening[0][0] == moment:
                _, node_id = heappop(opening)
                heappush(closing, (fitting[node_id].last, node_id))
            while closing and closing[0][0] < moment:
                _, node_id = heappop(closing)
                window = self._profile(node_id).window(resource_request, length, start=moment)
                if window is None:
                    del fitting[node_id]
                else:
                    fitting[node_id] = window
                    heappush(opening, (window.first, node_id))
            if opening and opening[0][0] == moment:
                continue
            if len(closing) >= resource_request.nodes:
                return moment
        return FOREVER


def _reserved(resource_request: ResourceRequest, node: NodeState) -> Allocation:
    """A share whose GPUs are chosen when the job starts."""
    return Allocation(node.spec.node_id, (), resource_request.cpus, resource_request.memory)
