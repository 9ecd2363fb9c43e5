"""The jobs that wait ahead of one that could start, and whether it would delay any of them.

Each of the first RESERVED of them has a reservation: when and where it starts at
the latest, if every run ends at its limit, and with the reservations of those
before it ("conservative backfill"). Where a run without a limit is in the way,
nothing can be said, and whatever the job could use is kept for it; so it is for those
that have no reservation since there are too many.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, NamedTuple

from app.coordinator.cluster.nodes import NodeState
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest
from app.coordinator.scheduling.backfill.claims import Claims
from app.coordinator.scheduling.backfill.plan import Plan
from app.coordinator.scheduling.backfill.profile import FOREVER
from app.coordinator.scheduling.backfill.surplus import Ahead, Unseen, leaves_room, usable_gpus
from app.coordinator.scheduling.backfill.timeline import end_of
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.preemption.promises import Promises
from app.coordinator.scheduling.queues.candidates import (
    CORES,
    IDLE,
    Candidates,
    Front,
    Lane,
    has_gpus,
)
from app.coordinator.scheduling.queues.turns import Turn
from app.coordinator.scheduling.queues.usage import Excess
from app.coordinator.scheduling.queues.waiting import Place

#: Jobs ahead that have a reservation.
RESERVED: Final = 16


@dataclass(slots=True)
class _Group:
    """Jobs that are alike, of which the first was found to wait."""

    turn: Turn
    usable: frozenset[str]
    places: Sequence[Place]
    candidates: Candidates
    #: How many of them have a reservation.
    reserved: int = 0
    #: Whether nobody can say when one of them starts.
    unknown: bool = False
    #: When the last one that has a reservation starts.
    start: int = 0

    @property
    def known(self) -> int:
        """Of how many it is known when they start."""
        return 0 if self.unknown else self.reserved

    def front(self, number: int) -> Front:
        """When it is the turn of one of them if those before it have started."""
        return self.candidates.front_after(self.turn.alike, self.places[number], number)

    def count_before(self, turn: Turn) -> int:
        """How many of them are ahead of another job."""
        if self.candidates.is_fair(self.turn.alike.account):
            return bisect_left(range(len(self.places)), turn.front, key=self.front)
        if turn.front.used > self.turn.front.used:
            # It comes behind all of its priority whose shares do not count.
            return bisect_left(
                self.places,
                turn.place._replace(urgency=turn.place.urgency + 1, created_at=0, job_id=""),
            )
        return bisect_left(self.places, turn.place)


class _Next(NamedTuple):
    """The next job that is given a reservation."""

    front: Front
    at: int
    group: int


class JobsAhead:
    """Those that were found to wait, in the order in which they were looked at."""

    def __init__(
        self, table: JobTable, ran: Callable[[JobRecord], int], promises: Promises
    ) -> None:
        self._table = table
        self._promises = promises
        self._ran = ran
        self._groups: list[_Group] = []
        self._plan: Plan | None = None
        self._next: list[_Next] = []
        self._reserved = 0
        #: What is held of nodes, as far as it was asked for.
        self._held: dict[str, list[Allocation]] = {}
        self._claims = Claims(table)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._groups)

    def add(self, turn: Turn, usable: frozenset[str]) -> None:
        """Note that a job waits, and with it all that are alike."""
        if turn.follows:
            return
        candidates = self._table.candidates
        self._groups.append(_Group(turn, usable, candidates.places(turn.alike), candidates))
        if self._plan is not None:
            heappush(self._next, _Next(turn.front, 0, len(self._groups) - 1))

    def placed(self, job: JobRecord) -> None:
        """Note that a job has been placed."""
        for share in job.placement:
            self._held.pop(share.node_id, None)
        self._claims.placed()
        # Those ahead may start at other places than before, and leave room at these.
        self._plan = None

    def moved_by(self, job: JobRecord) -> bool:
        """Whether one of these is no longer ahead of those that come behind a job that was placed:
        a limit keeps it waiting now, or its tenant has had its turn in a fair queue."""
        account = self._table.rules.account_of(job)
        fair = self._table.candidates.is_fair(account)
        return any(
            fair and group.turn.alike.account == account for group in self._groups
        ) or self.limited_by(job)

    def limited_by(self, job: JobRecord) -> bool:
        """Whether a limit keeps one of these waiting since a job has been placed."""
        return any(
            limit.covers(group.turn.job) and self._table.usage.excess(group.turn.job)
            for group in self._groups
            for limit in self._table.rules.limits_of(job)
        )

    def stopped(self) -> None:
        """Note that the end of a run has come nearer."""
        self._plan = None

    @contextmanager
    def beside(self, promises: Promises) -> Iterator[None]:
        """Go by other promises in a block."""
        own, self._promises = self._promises, promises
        self._forget()
        try:
            yield
        finally:
            self._promises = own
            self._forget()

    def promised(self, promises: Promises) -> None:
        """Go by other promises from now on."""
        self._promises = promises
        self._forget()

    def _forget(self) -> None:
        self._plan = None
        self._held.clear()
        self._claims.placed()

    def first_for(self, usable: Collection[str]) -> JobRecord | None:
        """The first that could use one of these nodes."""
        for group in self._groups:
            if not group.usable.isdisjoint(usable):
                return group.turn.job
        return None

    def place(
        self, turn: Turn, usable: Collection[str], unseen: Collection[Lane]
    ) -> tuple[Allocation, ...] | None:
        """Where a job delays nobody ahead of it: if it has a limit, where it ends before anybody
        needs what it takes, else where nobody can use that. `unseen` are the lanes of jobs ahead
        that were not looked at."""
        if self.may_need(turn.job.resource_request, unseen):
            return None
        kinds = self._unseen(unseen)
        if turn.job.max_runtime:
            return self._place_in_time(turn, usable, kinds)
        return self._place_for_ever(turn, usable, kinds)

    def may_need(self, request: ResourceRequest, unseen: Collection[Lane]) -> bool:
        """Whether jobs ahead that were not looked at may need all that there is of something."""
        return self._unseen(unseen).may_use(request)

    def excess(
        self, turn: Turn, unseen: Collection[Lane], *, whenever: bool = False
    ) -> Excess | None:
        """The limit of which those ahead of a job need what is left, if it starts now; with
        `whenever`, if it starts at any time."""
        job = turn.job
        for limit in self._table.rules.limits_of(job):
            under = [group for group in self._groups if limit.covers(group.turn.job)]
            in_time = bool(job.max_runtime) and not whenever
            if in_time and under:
                plan = self._current_plan()
                deque(self._reservations_before(turn, plan), maxlen=0)
                of_gpus = plan.quotas.exceeded_within(limit, job, job.max_runtime)
                if of_gpus is not None:
                    return self._table.usage.excess_of(limit, of_gpus=of_gpus, of_ahead=True)
            left = [
                Ahead(group.turn.job.resource_request, jobs)
                for group in under
                if (jobs := group.count_before(turn) - (group.known if in_time else 0)) > 0
            ]
            if (excess := self._claims.excess(limit, job, left, unseen)) is not None:
                return excess
        return None

    def _unseen(self, lanes: Collection[Lane]) -> Unseen:
        return Unseen(
            idle=IDLE in lanes,
            cores=CORES in lanes,
            gpus=any(map(has_gpus, lanes)),
            densest=self._table.candidates.densest() if lanes else (0.0, 0.0),
        )

    def _place_for_ever(
        self, turn: Turn, usable: Collection[str], unseen: Unseen
    ) -> tuple[Allocation, ...] | None:
        request = turn.job.resource_request
        ahead = [
            (group.usable, Ahead(group.turn.job.resource_request, jobs))
            for group in self._groups
            if (jobs := group.count_before(turn))
        ]

        def fit(node: NodeState) -> Allocation | None:
            share = self._promises.fit(node, request)
            if share is None or self._leaves_room(node, share, request, ahead, unseen):
                return share
            if not request.gpus or len(set(node.spec.gpus)) == 1:
                return None
            # GPUs of a kind that nobody ahead can use may be left.
            here = [each for names, each in ahead if node.spec.node_id in names]
            share = self._promises.fit(node, request, avoid=usable_gpus(node, here))
            if share and self._leaves_room(node, share, request, ahead, unseen):
                return share
            return None

        return self._table.cluster.place(request, among=usable, fit=fit)

    def _place_in_time(
        self, turn: Turn, usable: Collection[str], unseen: Unseen
    ) -> tuple[Allocation, ...] | None:
        request, length = turn.job.resource_request, turn.job.max_runtime
        nodes = self._table.cluster.nodes
        plan = self._current_plan()
        fitting = {
            name: share
            for name in usable
            if (share := plan.timeline.fit_now(nodes[name], request, length))
        }
        for taken in self._reservations_before(turn, plan):
            for name in taken & fitting.keys():
                if share := plan.timeline.fit_now(nodes[name], request, length):
                    fitting[name] = share
                else:
                    del fitting[name]
            if len(fitting) < request.nodes:
                return None
        unknown = [
            (group.usable, Ahead(group.turn.job.resource_request, jobs))
            for group in self._groups
            if len(group.places) > group.known
            if (jobs := group.count_before(turn) - group.known) > 0
        ]

        def fit(node: NodeState) -> Allocation | None:
            share = fitting[node.spec.node_id]
            return share if self._leaves_room(node, share, request, unknown, unseen) else None

        return self._table.cluster.place(request, among=fitting, fit=fit)

    def _leaves_room(
        self,
        node: NodeState,
        share: Allocation,
        request: ResourceRequest,
        ahead: Iterable[tuple[frozenset[str], Ahead]],
        unseen: Unseen,
    ) -> bool:
        node_id = node.spec.node_id
        here = [each for usable, each in ahead if node_id in usable]
        if not here and not unseen:
            return True
        held = self._held.get(node_id)
        if held is None:
            held = self._held[node_id] = [
                share
                for job_id in node.job_ids
                for share in self._table.jobs[job_id].placement
                if share.node_id == node_id
            ]
            held += [share for _, share in self._promises.on(node_id)]
        return leaves_room(node, held, request, here, unseen, gpus=share.gpus)

    def _current_plan(self) -> Plan:
        if self._plan is None:
            table = self._table
            self._plan = Plan(table.cluster, table.holding, self._end, table.rules, self._promises)
            self._reserved = 0
            self._next = []
            for number, group in enumerate(self._groups):
                group.unknown, group.reserved, group.start = False, 0, 0
                heappush(self._next, _Next(group.turn.front, 0, number))
        return self._plan

    def _reservations_before(self, turn: Turn, plan: Plan) -> Iterator[Set[str]]:
        """Make the reservations of those ahead of a job, as many as have one and are not made yet:
        the nodes of each."""
        while self._next and self._reserved < RESERVED:
            front, at, number = self._next[0]
            group = self._groups[number]
            if at and not front < turn.front:
                break
            heappop(self._next)
            taken = self._reserve(group, plan)
            if at + 1 < len(group.places) and not group.unknown:
                heappush(self._next, _Next(group.front(at + 1), at + 1, number))
            yield taken

    def _end(self, job: JobRecord) -> int:
        return end_of(job, ran=self._ran(job))

    def _reserve(self, group: _Group, plan: Plan) -> Set[str]:
        self._reserved += 1
        job = group.turn.job
        length = job.max_runtime or FOREVER
        # What is alike fits no earlier than the one before it.
        found = plan.reserve(job, group.usable, length, group.start)
        if found is None:
            group.unknown = True
            return frozenset()
        group.start, group.reserved = found.start, group.reserved + 1
        return found.shares.keys()
