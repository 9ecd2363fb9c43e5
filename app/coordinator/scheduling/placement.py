"""Who is placed where: by priority, then age, past others where that delays none of them, and with
preemption where it helps."""

from collections.abc import Callable, Sequence
from typing import Final

from app.coordinator.jobs.model import Allocation, JobRecord
from app.coordinator.jobs.queue_rules import Scope
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.backfill.ahead import JobsAhead
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.preemption.making_room import RoomMaker
from app.coordinator.scheduling.preemption.promises import (
    Promises,
    drop_promise,
    lost,
    placement_of,
)
from app.coordinator.scheduling.queues.candidates import Front, Lane, has_gpus
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
    or somebody is stopped; at once where a limit keeps somebody waiting since who held up others.
    Returns whether another look would get further: many of those that nothing can start were
    found, and none of them is looked at again.
    """
    losers: set[str] = set()
    for _ in range(_MOST_AGAIN):
        look = _Round(table, ran, losers=losers)
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
        self,
        table: JobTable,
        ran: Callable[[JobRecord], int],
        *,
        changes: bool = True,
        losers: set[str] | None = None,
    ) -> None:
        self._table = table
        self._cluster = table.cluster
        self._changes = changes
        table.candidates.unpark(table.cluster.version)
        #: Those whose promises could not be kept.
        self._losers: set[str] = set() if losers is None else losers
        if changes:
            self._drop_lost()
        self._promises = Promises(table)
        self._turns = Turns(table.candidates)
        self._ahead = JobsAhead(table, ran, self._promises)
        #: Those who are promised a place and had no turn yet; the first is the last.
        self._promised: list[tuple[Front, JobRecord]] = sorted(
            ((table.candidates.front_of(job), job) for job in self._promises.jobs), reverse=True
        )
        self._looks: dict[Lane, int] = {}
        self._parked = 0
        self._refused: dict[Lane, int] = {}
        self._room = RoomMaker(table, stops=changes, losers=self._losers)
        self.verdicts = Verdicts()
        #: Whether somebody was found to wait for something other than room.
        self._refused_any = False
        #: Whether somebody may start now who was looked at too early for that.
        self.again = False
        #: Whether that is so of those whom somebody held up who was ahead, and whom a limit keeps
        #: waiting now: nobody behind them is placed before them.
        self._at_once = False
        #: Whether there are too many of those that nothing can start for one look.
        self.cut_short = False

    def run(self, newcomer: JobRecord | None = None) -> None:
        """Look at all, and at a newcomer when it would be its turn."""
        own = self._turns.of_newcomer(newcomer) if newcomer is not None else None
        while (turn := self._turns.next()) is not None:
            if own is not None and own.front < turn.front:
                self._take_promised(own.front)
                self.verdicts.newcomer_starts = self._finds_room(own)
                own = None
            self._take_promised(turn.front)
            self._take(turn)
            if self._at_once:
                break
        if own is not None:
            self._take_promised(own.front)
            self.verdicts.newcomer_starts = self._finds_room(own)
        if not self._at_once:
            self._take_promised(None)
        if self._room.stopped:
            self._room.bind()

    def _finds_room(self, turn: Turn) -> bool:
        """Whether a newcomer would be placed."""
        if self._table.usage.excess(turn.job) or self._ahead.excess(turn, self._turns.unseen):
            return False
        return self._place_for(turn, self._overtaken_by(turn)) is not None

    def _drop_lost(self) -> None:
        """Drop the promises that cannot be kept any more: a node is gone, or other rules hold."""
        table = self._table
        promised = sorted(table.promised.values(), key=table.candidates.front_of)
        losers = lost(table, promised, kept=())
        for job in promised:
            if job.job_id in losers or table.rules.never(job) or table.usage.exceeds(job):
                drop_promise(table, job.job_id)
                self._losers.add(job.job_id)

    def _take_promised(self, front: Front | None) -> None:
        """Start those whose turn comes first where they are promised a place, if that is free, or
        elsewhere, if that delays nobody and they are not bound."""
        while self._promised and (front is None or self._promised[-1][0] < front):
            own, job = self._promised.pop()
            job = self._table.jobs[job.job_id]
            if job.promise is None or not self._changes:
                continue
            placement = placement_of(self._cluster, job)
            if placement is None and not job.promise.bound:
                others = Promises(self._table, without=(job.job_id,))
                if others.place(job.resource_request) is not None:
                    turn = self._turns.of_newcomer(job)._replace(front=own)
                    with self._ahead.beside(others):
                        placement = self._without_delay(turn, others)
                    # What it was promised is free for those who had their turn already.
                    self.again |= placement is not None
                    self._refused_any |= placement is None
            if placement is not None:
                self._place(job, placement)

    def _overtaken_by(self, turn: Turn) -> Sequence[JobRecord]:
        """Those whose promised places a job may have instead: it is newer than their promises, and
        comes first."""
        return [
            job
            for _, job in reversed(self._promised)
            if job.promise is not None and job.promise.newest_job < turn.job.created_at
        ]

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
        overtaken = self._overtaken_by(turn)
        placement = self._place_for(turn, overtaken)
        if placement is None:
            self._wait(turn, overtaken)
        elif self._changes:
            self._place(job, placement)
            self._check_overtaken(overtaken)
        else:
            self._count_look(turn.lane, refused=False)

    def _place_for(
        self, turn: Turn, overtaken: Sequence[JobRecord]
    ) -> tuple[Allocation, ...] | None:
        """Where a job can start now without delaying anybody ahead of it, and if possible without
        what `overtaken` are promised."""
        placement = self._without_delay(turn, self._promises)
        if placement is None and overtaken:
            without = Promises(self._table, without={job.job_id for job in overtaken})
            if without.place(turn.job.resource_request) is not None:
                with self._ahead.beside(without):
                    placement = self._without_delay(turn, without)
        return placement

    def _without_delay(self, turn: Turn, promises: Promises) -> tuple[Allocation, ...] | None:
        """Where a job can start now without delaying anybody ahead of it."""
        usable = self._cluster.usable(turn.job.resource_request)
        free = promises.place(turn.job.resource_request)
        if free is None or not (self._ahead or self._turns.unseen):
            return free
        return self._ahead.place(turn, usable, self._turns.unseen)

    def _check_overtaken(self, overtaken: Sequence[JobRecord]) -> None:
        """Drop the promises that cannot be kept beside what has been placed."""
        names = {job.job_id for job in overtaken}
        kept = [job for job in self._promises.jobs if job.job_id not in names]
        for job_id in lost(self._table, overtaken, kept=kept):
            drop_promise(self._table, job_id)
            self._losers.add(job_id)
            self._promises_changed()

    def _promises_changed(self) -> None:
        """Look at the promises as they are now, and at all again: what was looked at too early for
        that is not promised, or not counted."""
        self._promises = Promises(self._table)
        self._promised = [
            (front, self._table.jobs[job.job_id])
            for front, job in self._promised
            if job.job_id in self._table.promised
        ]
        self._ahead.promised(self._promises)
        self._room.changed()
        self.again = True

    def _place(self, job: JobRecord, placement: tuple[Allocation, ...]) -> None:
        nodes = tuple(allocation.node_id for allocation in placement)
        before = job
        job = self._table.transition(
            job,
            Status.SCHEDULING,
            f"Placed on {', '.join(nodes)}.",
            placement=placement,
            node_ids=nodes,
        )
        self._table.instruct(Prepare(job))
        if before.promise is not None:
            self._promises = Promises(self._table)
            self._ahead.promised(self._promises)
            # Who was refused what was promised counted as one for whom there is room.
            self.again |= self._refused_any
        else:
            self._promises.placed(job)
            self._ahead.placed(job)
            # Plans and limits go by what is held: one that was refused may start now, or others
            # may, whom it held up.
            self.again |= self._refused_any or self._ahead.moved_by(job)
            self._at_once |= self._ahead.limited_by(job)
        self._room.changed()

    def _wait(self, turn: Turn, overtaken: Sequence[JobRecord]) -> None:
        """Have a job wait that finds no room."""
        job, usable = turn.job, self._cluster.usable(turn.job.resource_request)
        behind = self._ahead.first_for(usable) or self._promises.first_on(usable)
        expecting = self._make_room(turn, overtaken)
        if expecting is not None and expecting.promise is not None:
            if turn.follows:
                self._turns.look_at_next_of_alike(turn)
            return
        if expecting is not None:
            self._turns.look_at_next_of_alike(turn)
        else:
            self._room.kept |= usable
        self._ahead.add(turn, usable)
        free = self._cluster.place(job.resource_request, among=usable) is not None
        promised = None
        if free and self._promises.place(job.resource_request) is None:
            promised = self._promises.first_on(usable)
        if free:
            reason = Reason.RESERVED
        elif expecting is not None and behind is None:
            reason = Reason.PREEMPTING
        else:
            reason = Reason.RESOURCES if behind is None else Reason.BEHIND
        if promised is not None:
            self._note(turn, reason, behind=promised, promised=True)
        else:
            self._note(turn, reason, behind=behind)
        self._count_look(turn.lane, refused=free)

    def _make_room(self, turn: Turn, overtaken: Sequence[JobRecord]) -> JobRecord | None:
        """Have a job's room there once what is being stopped has ended; None if that cannot be."""
        unseen = self._turns.unseen
        if not self._room.may_help(turn):
            return None
        if self._ahead.may_need(turn.job.resource_request, unseen) or self._ahead.excess(
            turn, unseen, whenever=True
        ):
            # Others would have what it asks for, or the limit, once there is room.
            return None
        expecting = self._room.make_room(turn, overtaken if self._changes else ())
        if expecting is not None and expecting.promise is not None:
            self._at_once |= self._ahead.limited_by(expecting)
            self._promises_changed()
        return expecting

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
        promised: bool = False,
    ) -> None:
        verdict = Verdict(turn.job, reason, behind=behind, excess=excess, promised=promised)
        if turn.follows:
            self.verdicts.of_job[turn.job.job_id] = verdict
        else:
            self.verdicts.of_alike[turn.alike] = verdict
        self._refused_any |= excess is not None or reason is Reason.RESERVED
        if reason in (Reason.RESOURCES, Reason.BEHIND, Reason.RESERVED, Reason.PREEMPTING):
            self.verdicts.of_lane[turn.lane] = self.verdicts.last = verdict


def _reason_of(excess: Excess) -> Reason:
    return Reason.QUEUE_LIMIT if excess.scope is Scope.QUEUE else Reason.TENANT_LIMIT
