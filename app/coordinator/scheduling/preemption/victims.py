"""Whom to stop so that a job of higher priority fits: as few as possible."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord, ResourceRequest, StopReason
from app.coordinator.jobs.states import Status

_STOPPABLE: Final = frozenset({Status.TRAINING, Status.EVALUATING})


def preemptible(holding: Iterable[JobRecord]) -> list[JobRecord]:
    """The jobs that may be stopped for one of a higher priority."""
    return [
        other
        for other in holding
        if other.status in _STOPPABLE and other.stop_reason is StopReason.NONE and other.preemptible
    ]


def choose_victims(
    trial: Cluster,
    resource_request: ResourceRequest,
    candidates: Sequence[JobRecord],
    *,
    without: Collection[str],
    urgency: Callable[[JobRecord], int] = lambda job: -job.priority,
) -> list[JobRecord]:
    """Those of `candidates` whose end makes room for all of a request; empty if nothing does.

    `trial` is a copy of the cluster in which what is being stopped has been
    released, and what is promised to others is taken; it is as before
    afterwards. Nodes in `without` are left out. Nobody is stopped who has a
    higher priority than is necessary (`urgency` has it, negated); then as few as
    possible are, the jobs that have the least and have run for the shortest time.
    Without any one of them the request would not fit.
    """
    for level in sorted(set(map(urgency, candidates)), reverse=True):
        eligible = [other for other in candidates if urgency(other) >= level]
        if victims := _Search(trial, resource_request, eligible, without, urgency).victims():
            return victims
    return []


class _Search:
    """Looks for the nodes that are the cheapest to empty, one after the other."""

    def __init__(
        self,
        trial: Cluster,
        resource_request: ResourceRequest,
        eligible: Sequence[JobRecord],
        without: Collection[str],
        urgency: Callable[[JobRecord], int],
    ) -> None:
        self._trial = trial
        self._request = resource_request
        self._without = without
        self._urgency = urgency
        self._here: dict[str, list[JobRecord]] = {}
        for other in eligible:
            for allocation in other.placement:
                self._here.setdefault(allocation.node_id, []).append(other)
        self._victims: dict[str, JobRecord] = {}

    def victims(self) -> list[JobRecord]:
        """The jobs to stop; empty if that would not suffice."""
        try:
            return self._find()
        finally:
            for other in self._victims.values():
                self._trial.allocate(other.job_id, other.placement)

    def _find(self) -> list[JobRecord]:
        left = [
            node.spec.node_id
            for node in self._trial.nodes.values()
            if node.takes_jobs
            and node.spec.node_id not in self._without
            and node.fits_empty(self._request)
        ]
        needed = {node_id: self._needed_on(node_id) for node_id in left}
        for _ in range(self._request.nodes):
            costs = [
                (self._cost(victims), node_id)
                for node_id, victims in needed.items()
                if victims is not None
            ]
            if not costs:
                return []
            _, node_id = min(costs)
            touched = {node_id}
            for other in needed.pop(node_id) or ():
                self._trial.release(other.job_id, other.placement)
                self._victims[other.job_id] = other
                touched.update(allocation.node_id for allocation in other.placement)
            for other_id in touched & needed.keys():
                needed[other_id] = self._needed_on(other_id)
        return self._necessary()

    def _needed_on(self, node_id: str) -> list[JobRecord] | None:
        """Whom to stop on one node; None if that would not suffice."""
        node = self._trial.nodes[node_id]
        here = [
            (other, allocation)
            for other in self._here.get(node_id, ())
            if other.job_id not in self._victims
            for allocation in other.placement
            if allocation.node_id == node_id
        ]
        for other, allocation in here:
            self._trial.release(other.job_id, (allocation,))
        found: list[JobRecord] | None = None
        if node.try_fit(self._request) is not None:
            # What has little is spared first: then those that are left are few.
            here.sort(key=lambda each: (*_holds(each[0]), self._urgency(each[0]), *_age(each[0])))
            found = []
            for other, allocation in here:
                self._trial.allocate(other.job_id, (allocation,))
                if node.try_fit(self._request) is None:
                    self._trial.release(other.job_id, (allocation,))
                    found.append(other)
        stopped = {other.job_id for other in found or ()}
        for other, allocation in here:
            if found is None or other.job_id in stopped:
                self._trial.allocate(other.job_id, (allocation,))
        return found

    def _necessary(self) -> list[JobRecord]:
        """Spare those without whom the request fits, too."""
        if self._trial.place(self._request, without=self._without) is None:
            return []
        for other in sorted(
            self._victims.values(), key=lambda each: (self._urgency(each), *_age(each))
        ):
            self._trial.allocate(other.job_id, other.placement)
            if self._trial.place(self._request, without=self._without) is not None:
                del self._victims[other.job_id]
            else:
                self._trial.release(other.job_id, other.placement)
        return list(self._victims.values())

    def _cost(self, victims: Sequence[JobRecord]) -> tuple[int, int, int, int]:
        """What it costs to stop these jobs: the newest run has the least to lose."""
        return (
            len(victims),
            -sum(map(self._urgency, victims)),
            sum(_holds(other)[0] for other in victims),
            -min((other.run_started_at for other in victims), default=0),
        )


def _holds(job: JobRecord) -> tuple[int, int, int]:
    """How much a job holds of all nodes."""
    return (
        sum(len(allocation.gpus) for allocation in job.placement),
        sum(allocation.cpus for allocation in job.placement),
        sum(allocation.memory for allocation in job.placement),
    )


def _age(job: JobRecord) -> tuple[int, str]:
    """The oldest run comes first."""
    return job.run_started_at, job.job_id
