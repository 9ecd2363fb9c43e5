"""The jobs that wait ahead of one that could start, and whether it would delay any of them.

Each of the first RESERVED of them has a reservation: when and where it starts at
the latest, if every run ends at its limit, and with the reservations of those
before it ("conservative backfill"). Where a run without a limit is in the way,
nothing can be said, and whatever the job could use is kept for it.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, NamedTuple

from app.coordinator.cluster.nodes import NodeState
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest
from app.coordinator.scheduling.backfill.surplus import NOTHING_UNSEEN, Ahead, Unseen, leaves_room
from app.coordinator.scheduling.backfill.timeline import FOREVER, Timeline
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.queues.candidates import CORES, IDLE, Lane, has_gpus
from app.coordinator.scheduling.queues.turns import Turn
from app.coordinator.scheduling.queues.waiting import Place

#: Jobs ahead that have a reservation. Those behind them are passed by jobs with a limit, but by
#: none without one.
RESERVED: Final = 8


@dataclass(slots=True)
class _Group:
    """Jobs that are alike, of which the first was found to wait."""

    turn: Turn
    usable: frozenset[str]
    places: Sequence[Place]
    #: Whether all of a smaller place come before one of a larger.
    ordered: bool
    #: Whether nobody can say when one of them starts.
    unknown: bool = False

    def count_before(self, turn: Turn) -> int:
        """How many of them are ahead of another job; all, where that depends on what comes."""
        return bisect_left(self.places, turn.place) if self.ordered else len(self.places)


class _Next(NamedTuple):
    """The next job that is given a reservation."""

    place: Place
    at: int
    group: int


class JobsAhead:
    """Those that were found to wait, in the order in which they were looked at."""

    def __init__(self, table: JobTable, ran: Callable[[JobRecord], int]) -> None:
        self._table = table
        self._ran = ran
        self._groups: list[_Group] = []
        self._timeline: Timeline | None = None
        self._next: list[_Next] = []
        self._reserved = 0
        #: What is held of nodes, as far as it was asked for.
        self._held: dict[str, list[Allocation]] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._groups)

    def add(self, turn: Turn, usable: frozenset[str]) -> None:
        """Note that a job waits, and with it all that are alike."""
        if turn.follows:
            return
        candidates = self._table.candidates
        group = _Group(
            turn,
            usable,
            candidates.places(turn.alike),
            candidates.in_order_of_places(turn.alike.account),
        )
        self._groups.append(group)
        if self._timeline is not None:
            heappush(self._next, _Next(turn.place, 0, len(self._groups) - 1))

    def placed(self, job: JobRecord) -> None:
        """Note that a job has been placed."""
        for share in job.placement:
            self._held.pop(share.node_id, None)
        if self._timeline is not None:
            self._timeline.take(job.placement, 0, job.max_runtime or FOREVER)

    def stopped(self) -> None:
        """Note that the end of a run has come nearer."""
        self._timeline = None

    def first_for(self, usable: Collection[str]) -> JobRecord | None:
        """The first that could use one of these nodes."""
        for group in self._groups:
            if not group.usable.isdisjoint(usable):
                return group.turn.job
        return None

    def place_for_ever(
        self, turn: Turn, usable: Collection[str], unseen: Collection[Lane]
    ) -> tuple[Allocation, ...] | None:
        """Where nobody ahead can use what a job would take, for however long."""
        kinds = Unseen(
            idle=IDLE in unseen,
            cores=CORES in unseen,
            gpus=any(map(has_gpus, unseen)),
            densest=self._table.candidates.densest(),
        )
        ahead = self._before(turn, self._groups)
        request = turn.job.resource_request

        def fit(node: NodeState) -> Allocation | None:
            share = node.try_fit(request)
            return share if share and self._leaves_room(node, request, ahead, kinds) else None

        return self._table.cluster.place(request, among=usable, fit=fit)

    def place_in_time(self, turn: Turn, usable: Collection[str]) -> tuple[Allocation, ...] | None:
        """Where a job with a limit ends before anybody ahead needs what it takes."""
        timeline = self._reserve_before(turn)
        unknown = self._before(turn, [group for group in self._groups if group.unknown])
        request, length = turn.job.resource_request, turn.job.max_runtime

        def fit(node: NodeState) -> Allocation | None:
            share = node.try_fit(request)
            if share is None or timeline.fit(node, request, 0, length) is None:
                return None
            if avoid := timeline.taken_gpus(node.spec.node_id, length):
                share = node.try_fit(request, avoid=avoid)
            return share if share and self._leaves_room(node, request, unknown) else None

        return self._table.cluster.place(request, among=usable, fit=fit)

    @staticmethod
    def _before(turn: Turn, groups: Iterable[_Group]) -> list[tuple[frozenset[str], Ahead]]:
        """Those of some jobs that are ahead of another one, each with the nodes it could use."""
        return [
            (group.usable, Ahead(group.turn.job.resource_request, jobs))
            for group in groups
            if (jobs := group.count_before(turn))
        ]

    def _leaves_room(
        self,
        node: NodeState,
        request: ResourceRequest,
        ahead: Iterable[tuple[frozenset[str], Ahead]],
        unseen: Unseen = NOTHING_UNSEEN,
    ) -> bool:
        node_id = node.spec.node_id
        held = self._held.get(node_id)
        if held is None:
            held = self._held[node_id] = [
                share
                for job_id in node.job_ids
                for share in self._table.jobs[job_id].placement
                if share.node_id == node_id
            ]
        here = [each for usable, each in ahead if node_id in usable]
        return leaves_room(node, held, request, here, unseen)

    def _reserve_before(self, turn: Turn) -> Timeline:
        """Make the reservations of those ahead of a job, as many as have one."""
        if self._timeline is None:
            self._timeline = Timeline(self._table.cluster, self._table.holding.values(), self._ran)
            self._reserved = 0
            self._next = []
            for number, group in enumerate(self._groups):
                group.unknown = False
                heappush(self._next, _Next(group.turn.place, 0, number))
        while self._next and self._reserved < RESERVED:
            place, at, number = self._next[0]
            group = self._groups[number]
            if at and not place < turn.place:
                break
            heappop(self._next)
            self._reserve(group)
            if group.ordered and at + 1 < len(group.places) and not group.unknown:
                heappush(self._next, _Next(group.places[at + 1], at + 1, number))
        return self._timeline

    def _reserve(self, group: _Group) -> None:
        assert self._timeline is not None
        self._reserved += 1
        job = group.turn.job
        length = job.max_runtime or FOREVER
        found = self._timeline.earliest(job.resource_request, group.usable, length)
        if found is None:
            group.unknown = True
        else:
            self._timeline.take(found.placement, found.start, min(found.start + length, FOREVER))
