"""Who is placed where: by priority, then age, past others where that delays none of them, and with
preemption where it helps."""

from collections.abc import Callable
from operator import itemgetter
from typing import Final

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import Allocation, JobRecord, StopReason
from app.coordinator.jobs.queue_rules import Scope
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.backfill.ahead import JobsAhead
from app.coordinator.scheduling.job_changes import comes_back, stop_run
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.preemption import choose_victims, preemptible
from app.coordinator.scheduling.queues.candidates import Lane, has_gpus
from app.coordinator.scheduling.queues.turns import Turn, Turns
from app.coordinator.scheduling.queues.usage import Excess
from app.coordinator.scheduling.transitions import Prepare
from app.coordinator.scheduling.verdicts import Reason, Verdict, Verdicts

#: Different requests of a lane that find no room and are looked at, and those of all lanes with
#: GPUs.
MOST_LOOKS: Final = 8
_MOST_LOOKS_FOR_GPUS: Final = 40
#: Those of a lane for which there is room that is kept for others.
_MOST_REFUSED: Final = 3
#: Requests that no enabled node can meet, or no limit allows at all, that are set aside in a look.
_MOST_PARKED: Final = 1024
#: Looks in a row at most, where each has placed a job.
_MOST_AGAIN: Final = 4


def place_waiting(table: JobTable, *, ran: Callable[[JobRecord], int]) -> bool:
    """Place what waits, in the order of the queues; `ran` says for how many microseconds a run
    has gone on.

    A job that finds no room is passed by those behind it only where that
    delays nobody: by one whose limit ends it before what it takes is needed, and
    by one without a limit onto what nobody ahead can use (`JobsAhead`).

    Jobs that are alike are looked at until one of them finds no room: the
    cost is that of the jobs that are placed, and of a bounded number of those
    that are not. All are looked at again where somebody was placed who comes later from then on,
    or somebody is stopped. Returns whether another look would get further: many of those that
    nothing can start were found, and none of them is looked at again.
    """
    for _ in range(_MOST_AGAIN):
        look = _Round(table, ran)
        look.run()
        if not look.again:
            return look.cut_short
    return True


def verdicts_of(
    table: JobTable, *, ran: Callable[[JobRecord], int], newcomer: JobRecord | None = None
) -> Verdicts:
    """Why those wait that wait, and whether a newcomer would; changes nothing."""
    look = _Round(table, ran, changes=False)
    look.run(newcomer)
    return look.verdicts


class _Round:
    """One look at all that waits."""

    def __init__(
        self, table: JobTable, ran: Callable[[JobRecord], int], *, changes: bool = True
    ) -> None:
        self._table = table
        self._cluster = table.cluster
        self._changes = changes
        table.candidates.unpark(table.cluster.version)
        self._turns = Turns(table.candidates)
        self._ahead = JobsAhead(table, ran)
        self._looks: dict[Lane, int] = {}
        self._parked = 0
        self._refused: dict[Lane, int] = {}
        holding = table.holding.values()
        #: What may be stopped for a job of a higher priority; nothing where nothing is to change.
        self._stoppable = preemptible(holding) if changes else []
        self._ending = any(map(_ends, holding))
        #: Nodes that those ahead could use for whom no room is being made.
        self._kept: set[str] = set()
        #: Those for whom room is there or being made once what is being stopped has ended, and
        #: the nodes on which that is not.
        self._promised: list[tuple[JobRecord, frozenset[str]]] = []
        #: Those that are being stopped and queued again, with their turns; the first is the last.
        self._returning = sorted(
            (
                (table.candidates.front_of(job), job)
                for job in holding
                if job.stop_reason is not StopReason.NONE and comes_back(job)
            ),
            reverse=True,
            key=itemgetter(0),
        )
        self._trial: Cluster | None = None
        self.verdicts = Verdicts()
        #: Whether somebody may start now who was looked at too early for that.
        self.again = False
        #: Whether there are too many of those that nothing can start for one look.
        self.cut_short = False

    def run(self, newcomer: JobRecord | None = None) -> None:
        """Look at all, and at a newcomer when it would be its turn."""
        own = self._turns.of_newcomer(newcomer) if newcomer is not None else None
        while (turn := self._turns.next()) is not None:
            if own is not None and own.front < turn.front:
                self.verdicts.newcomer_starts = self._finds_room(own)
                own = None
            self._take(turn)
        if own is not None:
            self.verdicts.newcomer_starts = self._finds_room(own)

    def _finds_room(self, turn: Turn) -> bool:
        """Whether a newcomer would be placed."""
        if self._table.usage.excess(turn.job) or self._ahead.excess(turn, self._turns.unseen):
            return False
        free = self._cluster.place(turn.job.resource_request)
        return self._without_delay(turn, free) is not None

    def _take(self, turn: Turn) -> None:
        job = turn.job
        usable = self._cluster.usable(job.resource_request)
        if len(usable) < job.resource_request.nodes or self._table.rules.never(job):
            # Only other nodes could help, or other limits: nobody has to wait for that.
            self._park(turn)
            return
        if exceeded := self._table.usage.excess(job):
            self._note(turn, _reason_of(exceeded[0]), excess=exceeded[0])
            for excess in exceeded:
                self._pass_over_limit(turn, excess)
            return
        if (claimed := self._ahead.excess(turn, self._turns.unseen)) is not None:
            self._note(turn, _reason_of(claimed), excess=claimed)
            self._count_look(turn.lane, refused=False)
            return
        free = self._cluster.place(job.resource_request, among=usable)
        placement = self._without_delay(turn, free)
        if placement is not None and self._changes:
            self._place(job, placement)
        elif placement is None:
            self._wait(turn, free=free is not None)
        else:
            self._count_look(turn.lane, refused=False)

    def _without_delay(
        self, turn: Turn, free: tuple[Allocation, ...] | None
    ) -> tuple[Allocation, ...] | None:
        """Where a job can start now without delaying anybody ahead of it; `free` is where it could
        otherwise."""
        if free is None or not (self._ahead or self._turns.unseen):
            return free
        usable = self._cluster.usable(turn.job.resource_request)
        return self._ahead.place(turn, usable, self._turns.unseen)

    def _place(self, job: JobRecord, placement: tuple[Allocation, ...]) -> None:
        nodes = tuple(allocation.node_id for allocation in placement)
        job = self._table.transition(
            job,
            Status.SCHEDULING,
            f"Placed on {', '.join(nodes)}.",
            placement=placement,
            node_ids=nodes,
        )
        self._table.instruct(Prepare(job))
        self._ahead.placed(job)
        self.again |= self._ahead.moved_by(job)
        self._trial = None

    def _wait(self, turn: Turn, *, free: bool) -> None:
        """Have a job wait that finds no room."""
        job, usable = turn.job, self._cluster.usable(turn.job.resource_request)
        behind = self._ahead.first_for(usable)
        promised = self._make_room(turn)
        if promised:
            self._promised.append((job, frozenset(self._kept)))
            self._turns.look_at_next_of_alike(turn)
        else:
            self._kept |= usable
        self._ahead.add(turn, usable)
        if free:
            reason = Reason.RESERVED
        elif promised and behind is None:
            reason = Reason.PREEMPTING
        else:
            reason = Reason.RESOURCES if behind is None else Reason.BEHIND
        self._note(turn, reason, behind=behind)
        self._count_look(turn.lane, refused=free)

    def _count_look(self, lane: Lane, *, refused: bool) -> None:
        """Bound the looks at what finds no room."""
        looks = self._looks[lane] = self._looks.get(lane, 0) + 1
        if refused:
            self._refused[lane] = self._refused.get(lane, 0) + 1
        if looks == MOST_LOOKS or self._refused.get(lane) == _MOST_REFUSED:
            self._turns.close_lane(lane)
        in_all = sum(count for each, count in self._looks.items() if has_gpus(each))
        if has_gpus(lane) and in_all == _MOST_LOOKS_FOR_GPUS:
            for each in self._table.candidates.lanes_with(gpus_only=True):
                self._turns.close_lane(each)

    def _make_room(self, turn: Turn) -> bool:
        """Whether a job has its room once what is being stopped has ended; preempt just enough of
        lower priority for that, if it is possible."""
        job, unseen = turn.job, self._turns.unseen
        candidates = [other for other in self._stoppable if other.priority < job.priority]
        if not candidates and not self._ending:
            return False
        if self._ahead.may_need(job.resource_request, unseen) or self._ahead.excess(
            turn, unseen, whenever=True
        ):
            # Others would have what it asks for, or the limit, once there is room.
            return False
        trial = self._after_stops(turn)
        placement = trial.place(job.resource_request, without=self._kept)
        if placement is None and candidates:
            victims = choose_victims(trial, job.resource_request, candidates, without=self._kept)
            for other in victims:
                trial.release(other.job_id, other.placement)
                self._stop(other, job)
                self._stoppable.remove(other)
            if victims:
                placement = trial.place(job.resource_request, without=self._kept)
        if placement is None:
            return False
        trial.allocate(job.job_id, placement)
        return True

    def _stop(self, victim: JobRecord, job: JobRecord) -> None:
        stop_run(
            self._table,
            victim,
            StopReason.PREEMPT,
            f"Preempted by a job with priority {job.priority}. Retry the job to run it again.",
        )
        self._ahead.stopped()
        self._ending = True
        self.again = True

    def _after_stops(self, turn: Turn) -> Cluster:
        """The cluster as it will be when what is being stopped has ended, and those have started
        for whom that is done, or that come back ahead of a job."""
        while self._returning and self._returning[-1][0] < turn.front:
            self._promised.append((self._returning.pop()[1], frozenset()))
            self._trial = None
        if self._trial is None:
            self._trial = self._cluster.copy()
            for job in self._table.holding.values():
                if _ends(job):
                    self._trial.release(job.job_id, job.placement)
            for job, kept in self._promised:
                placement = self._trial.place(job.resource_request, without=kept)
                if placement is not None:
                    self._trial.allocate(job.job_id, placement)
        return self._trial

    def _pass_over_limit(self, turn: Turn, excess: Excess) -> None:
        """Have those wait that are subject to the same limit: a small one does not pass a large one
        for which the limit leaves no room now."""
        verdict = Verdict(turn.job, _reason_of(excess), excess=excess)
        account = turn.alike.account
        lanes = self._table.candidates.lanes_with(gpus_only=excess.of_gpus)
        for lane in lanes:
            if excess.scope is Scope.QUEUE:
                self._turns.close_queue(account.queue_name, lane)
                self.verdicts.of_queue[account.queue_name, lane] = verdict
            elif excess.scope is Scope.TENANT:
                self._turns.close_tenant(account.tenant_id, lane)
                self.verdicts.of_tenant[account.tenant_id, lane] = verdict
            else:
                self._turns.close_account(account, lane)
                self.verdicts.of_account[account, lane] = verdict

    def _park(self, turn: Turn) -> None:
        self._table.candidates.park(turn.alike)
        self._parked += 1
        if self._parked > _MOST_PARKED:
            self._turns.close_lane(turn.lane)
            self.cut_short = True

    def _note(
        self,
        turn: Turn,
        reason: Reason,
        *,
        behind: JobRecord | None = None,
        excess: Excess | None = None,
    ) -> None:
        verdict = Verdict(turn.job, reason, behind=behind, excess=excess)
        if turn.follows:
            self.verdicts.of_job[turn.job.job_id] = verdict
        else:
            self.verdicts.of_alike[turn.alike] = verdict
        if reason in (Reason.RESOURCES, Reason.BEHIND, Reason.RESERVED, Reason.PREEMPTING):
            self.verdicts.of_lane[turn.lane] = self.verdicts.last = verdict


def _reason_of(excess: Excess) -> Reason:
    return Reason.QUEUE_LIMIT if excess.scope is Scope.QUEUE else Reason.TENANT_LIMIT


def _ends(job: JobRecord) -> bool:
    """Whether a job that holds resources is about to give them back."""
    return job.stop_reason is not StopReason.NONE or job.status is Status.EXPORTING
