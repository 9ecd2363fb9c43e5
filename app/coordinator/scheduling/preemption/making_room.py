"""Who has room once what is being stopped has ended, and for whom more is stopped."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import Allocation, JobRecord, StopReason
from app.coordinator.scheduling.job_changes import comes_back, is_ending, stop_run
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.preemption.promises import (
    can_hold,
    drop_promise,
    make_promise,
    shares_of,
)
from app.coordinator.scheduling.preemption.victims import choose_victims, preemptible
from app.coordinator.scheduling.queues.candidates import Front
from app.coordinator.scheduling.queues.turns import Turn


class RoomMaker:
    """Of one look at all that waits, in the order of turns."""

    def __init__(self, table: JobTable, *, stops: bool, losers: set[str]) -> None:
        """With `stops`, runs are stopped. `losers` had a promise that could not be kept: they are
        promised another place where what is being stopped suffices."""
        self._table = table
        self._stops = stops
        self._losers = losers
        holding = table.holding.values()
        #: What may be stopped for a job that comes first.
        self._stoppable = preemptible(holding) if stops else []
        self._ending = any(map(is_ending, holding))
        #: Nodes that those ahead could use for whom no room is being made.
        self.kept: set[str] = set()
        #: Those who have their room, too, once what is being stopped has ended, but are promised
        #: none, and the nodes on which that is not.
        self._expecting: list[tuple[JobRecord, frozenset[str]]] = []
        #: The places at which these would start, by job id.
        self._expected: dict[str, Sequence[Allocation]] = {}
        #: Those that are being stopped and queued again, with their turns; the first is the last.
        self._returning: list[tuple[Front, JobRecord]] = sorted(
            (
                (table.candidates.front_of(job), job)
                for job in holding
                if job.stop_reason is not StopReason.NONE and comes_back(job)
            ),
            reverse=True,
            key=itemgetter(0),
        )
        self._trial: Cluster | None = None
        #: Whether anybody was stopped.
        self.stopped = False

    def may_help(self, turn: Turn) -> bool:
        """Whether a job may have room once runs have ended."""
        return self._ending or bool(self._stoppable_for(turn))

    def _stoppable_for(self, turn: Turn) -> list[JobRecord]:
        """Those that may be stopped for a job: of a lower priority as the queues count it."""
        return [other for other in self._stoppable if self._urgency(other) > turn.front.urgency]

    def _urgency(self, job: JobRecord) -> int:
        return self._table.candidates.place_of(job).urgency

    def changed(self) -> None:
        """Note that a job has been placed, or that promises have changed."""
        self._trial = None

    def make_room(self, turn: Turn, overtaken: Sequence[JobRecord]) -> JobRecord | None:
        """Have a job's room there once what is being stopped has ended; stop just enough that comes
        later for that, if it is possible. None if it is not; otherwise the job, which is promised
        its place if anything was stopped for it, now or before. It may have the places of
        `overtaken`, who are promised nothing then if theirs are not left."""
        job, request = turn.job, turn.job.resource_request
        trial = self._after_stops(turn)
        placement = trial.place(request, without=self.kept)
        victims: list[JobRecord] = []
        released: Sequence[JobRecord] = ()
        if placement is None:
            released = overtaken
            for other in released:
                trial.release(other.job_id, shares_of(other))
            placement = trial.place(request, without=self.kept)
            if placement is None and (candidates := self._stoppable_for(turn)):
                victims = choose_victims(
                    trial, request, candidates, without=self.kept, urgency=self._urgency
                )
                for other in victims:
                    trial.release(other.job_id, other.placement)
                if victims:
                    placement = trial.place(request, without=self.kept)
        if placement is None:
            for other in released:
                trial.allocate(other.job_id, shares_of(other))
            return None
        shares = [self._soonest(trial, job, share, victims) for share in placement]
        trial.allocate(job.job_id, shares)
        for other in released:
            if all(can_hold(trial.nodes[share.node_id], share) for share in shares_of(other)):
                trial.allocate(other.job_id, shares_of(other))
            elif self._stops:
                self._losers.add(other.job_id)
                drop_promise(self._table, other.job_id)
        for other in victims:
            self._stop(other, job)
        if victims:
            # What was stopped is enough if they start there, and may not be elsewhere.
            for name, expected in self._expected.items():
                make_promise(self._table, self._table.jobs[name], expected)
            self._expecting, self._expected = [], {}
        if victims or released or job.job_id in self._losers:
            return make_promise(self._table, job, shares)
        self._expecting.append((job, frozenset(self.kept)))
        self._expected[job.job_id] = shares
        return job

    def _soonest(
        self, trial: Cluster, job: JobRecord, share: Allocation, victims: Sequence[JobRecord]
    ) -> Allocation:
        """The same share with those GPUs that are free the soonest, where any will do: what its own
        victims give back, then what is free now and others could use."""
        node = trial.nodes[share.node_id]
        gpus, held = node.spec.gpus, self._table.cluster.nodes[share.node_id].taken_gpus
        own = {
            gpu
            for victim in victims
            for each in victim.placement
            if each.node_id == share.node_id
            for gpu in each.gpus
        }
        free = sorted(
            node.free_gpus(job.resource_request),
            key=lambda gpu: (gpus[gpu].memory, gpu not in own, gpu in held),
        )
        return replace(share, gpus=tuple(sorted(free[: len(share.gpus)])))

    def _stop(self, victim: JobRecord, job: JobRecord) -> None:
        stop_run(
            self._table,
            victim,
            StopReason.PREEMPT,
            f"Preempted by a job with priority {job.priority}. Retry the job to run it again.",
        )
        self._stoppable.remove(victim)
        self._ending = self.stopped = True

    def _after_stops(self, turn: Turn) -> Cluster:
        """The cluster as it will be when what is being stopped has ended, and those have started
        for whom that is done. What those could use that come back ahead of a job is kept for them:
        nobody knows yet where they start."""
        while self._returning and self._returning[-1][0] < turn.front:
            back = self._returning.pop()[1]
            self.kept |= self._table.cluster.usable(back.resource_request)
        if self._trial is None:
            self._trial = settled_cluster(self._table)
            self._expected.clear()
            for job, kept in self._expecting:
                placement = self._trial.place(job.resource_request, without=kept)
                if placement is not None:
                    self._trial.allocate(job.job_id, placement)
                    self._expected[job.job_id] = placement
                else:
                    self.kept |= self._table.cluster.usable(job.resource_request)
        return self._trial

    def bind(self) -> None:
        """Bind all to their places who might start elsewhere while one goes on that is being
        stopped for them, though nothing happens but the ends of what is being stopped: it would be
        stopped in vain. What is promised counts as free, since those to whom it is may move."""
        ended = ended_cluster(self._table)
        for job in list(self._table.promised.values()):
            assert job.promise is not None
            if not job.promise.bound and any(
                self._fits_beside(ended, job, victim) for victim in self._ending_beside(job)
            ):
                self._table.transition(job, promise=replace(job.promise, bound=True))

    def _ending_beside(self, job: JobRecord) -> Iterator[JobRecord]:
        nodes = self._table.cluster.nodes
        names = {name for share in shares_of(job) for name in nodes[share.node_id].job_ids}
        return (
            other
            for name in sorted(names)
            if (other := self._table.jobs[name]).stop_reason is StopReason.PREEMPT
        )

    @staticmethod
    def _fits_beside(ended: Cluster, job: JobRecord, victim: JobRecord) -> bool:
        ended.allocate(victim.job_id, victim.placement)
        try:
            return ended.place(job.resource_request) is not None
        finally:
            ended.release(victim.job_id, victim.placement)


def ended_cluster(table: JobTable) -> Cluster:
    """The cluster once what is being stopped has ended."""
    ended = table.cluster.copy()
    for job in table.holding.values():
        if is_ending(job):
            ended.release(job.job_id, job.placement)
    return ended


def settled_cluster(table: JobTable) -> Cluster:
    """The same once all promises are kept."""
    settled = ended_cluster(table)
    for job in table.promised.values():
        settled.allocate(job.job_id, shares_of(job))
    return settled
