"""The jobs that have not ended, the resources that they hold, and the one way to change both."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from app.coordinator.cluster.node_specs import NodeReport
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import SchedulingRules
from app.coordinator.jobs.states import HOLDING, TERMINAL, Status, check_move
from app.coordinator.jobs.times import creation_time
from app.coordinator.scheduling.queues.candidates import Candidates
from app.coordinator.scheduling.queues.usage import Usage
from app.coordinator.scheduling.queues.waiting import WaitingJobs
from app.coordinator.scheduling.transitions import Instruction, Transition

_NO_RULES: Final = SchedulingRules()


class JobTable:
    """Changes by `transition`, `instruct`, `set_drain` and `set_nodes` alone, in a block of
    `changing`.

    A block changes all that it changes, or nothing: what it did is recorded here, and undone if
    it raises.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        clock: Callable[[], int],
        newest_creation: int = 0,
        rules: SchedulingRules = _NO_RULES,
    ) -> None:
        """`newest_creation` is when the newest job was made, of those that have ended, too."""
        self.cluster = cluster
        self.now = clock
        self._newest_creation = newest_creation
        self._jobs: dict[str, JobRecord] = {}
        #: The jobs by id, to be read.
        self.jobs: Mapping[str, JobRecord] = MappingProxyType(self._jobs)
        #: Those of them that wait.
        self.waiting = WaitingJobs(self._jobs, rules)
        self.rules = rules
        #: What queues and tenants hold.
        self.usage = Usage(rules)
        #: Those that are QUEUED, as they are looked at.
        self.candidates = Candidates(self._jobs, rules, self.usage)
        self._holding: dict[str, JobRecord] = {}
        #: Those that hold resources, to be read.
        self.holding: Mapping[str, JobRecord] = MappingProxyType(self._holding)
        self._promised: dict[str, JobRecord] = {}
        #: Those of the QUEUED that are promised a place, to be read.
        self.promised: Mapping[str, JobRecord] = MappingProxyType(self._promised)
        self._recording: Transition | None = None

    @property
    def newest_creation(self) -> int:
        """When the newest job was made."""
        return self._newest_creation

    @property
    def recorded(self) -> Transition:
        """What the block has changed so far. Raises RuntimeError outside of one."""
        if self._recording is None:
            raise RuntimeError("jobs change only within a block of JobTable.changing")
        return self._recording

    @contextmanager
    def changing(self) -> Iterator[Transition]:
        """Record what the block changes, and undo all of it if the block raises.

        Raises RuntimeError within another block.
        """
        if self._recording is not None:
            raise RuntimeError("a change of jobs cannot begin another one")
        self._recording = Transition()
        newest_creation = self._newest_creation
        try:
            yield self._recording
        except BaseException:
            self._undo(self._recording)
            self._newest_creation = newest_creation
            raise
        finally:
            self._recording = None

    def transition(
        self,
        job: JobRecord,
        status: Status | None = None,
        message: str | None = None,
        **changes: Any,
    ) -> JobRecord:
        """Put the job's next version into the table and return it.

        Without a status it stays in its state. Resources are taken and given
        back as the state demands: `placement` comes with the state that begins
        to hold them. A job that has ended leaves the table, one that was not
        there is new and is taken as it is. Raises IllegalMove, and ValueError
        for resources that others hold or for a version that is not the newest.
        """
        before = self._jobs.get(job.job_id)
        recorded = self.recorded
        if before is not None and before is not job:
            raise ValueError(f"only the newest version of {job.job_id} can be changed")
        recorded.before.setdefault(job.job_id, before)
        if before is None:
            job = self._created(job)
        else:
            status = job.status if status is None else status
            if message is not None:
                changes["message"] = message
            job = self._next(job, status, changes)
        self._put(job.job_id, job)
        recorded.changed.append(job)
        if job.status in TERMINAL:
            self._put(job.job_id, None)
        return job

    def _put(self, job_id: str, job: JobRecord | None) -> None:
        """Put in a job's newest version, or take the job out, if it is there."""
        before = self._jobs.get(job_id)
        if before is not None:
            self.waiting.remove(before)
            self.candidates.remove(before)
        if job is None:
            self._jobs.pop(job_id, None)
        else:
            self._jobs[job_id] = job
            self.waiting.add(job)
            self.candidates.add(job)
        self._hold(job_id, self._holding.get(job_id) or self._promised.get(job_id), job)

    def _hold(self, job_id: str, before: JobRecord | None, job: JobRecord | None) -> None:
        """Note what a job holds now or is promised, and what that was."""
        self._holding.pop(job_id, None)
        self._promised.pop(job_id, None)
        if before is not None:
            self.usage.remove(before)
        if job is not None and job.status in HOLDING:
            self._holding[job_id] = job
        elif job is not None and job.promise is not None:
            self._promised[job_id] = job
        holds = job_id in self._holding or job_id in self._promised
        if job is not None and holds:
            self.usage.add(job)
        if (before is not None) is not holds:
            changed = before or job
            assert changed is not None
            self.candidates.held_changed(changed)

    def instruct(self, instruction: Instruction) -> None:
        """Have something done once the block's changes are stored."""
        self.recorded.instructions.append(instruction)

    def set_drain(self, node_id: str, reason: str | None) -> None:
        """Drain a node for a reason, which may be empty, or enable it."""
        self.recorded.drained.setdefault(node_id, self.cluster.nodes[node_id].drain)
        self.cluster.set_drain(node_id, reason)

    def set_nodes(self, reports: Iterable[NodeReport]) -> None:
        """Have these nodes; jobs that hold something of a node that is new have it again."""
        if self.recorded.nodes_before is None:
            self.recorded.nodes_before = self.cluster.reports()
        self.cluster.set_nodes(reports)
        self._allocate_all()

    def restore(self, jobs: Iterable[JobRecord]) -> dict[str, ValueError]:
        """Fill the table with what was stored. Call once, before any block.

        Returns why jobs do not have their resources, by id: those must end.
        """
        problems = {}
        for job in jobs:
            if job.status in HOLDING:
                try:
                    self.cluster.allocate(job.job_id, job.placement)
                except ValueError as error:
                    problems[job.job_id] = error
                    job = replace(job, placement=())
            self._put(job.job_id, job)
        return problems

    def stamp(self, job: JobRecord) -> int:
        """Return this moment, as a time of a job's: they never go back, though the clock may."""
        return max(self.now(), job.updated_at)

    def _created(self, job: JobRecord) -> JobRecord:
        created = creation_time(job.created_at, self._newest_creation)
        self._newest_creation = created
        return replace(job, created_at=created, updated_at=max(job.updated_at, created))

    def _next(self, job: JobRecord, status: Status, changes: dict[str, Any]) -> JobRecord:
        now = self.stamp(job)
        if status is not job.status:
            check_move(job.status, status)
            if job.status in HOLDING and status not in HOLDING:
                self.cluster.release(job.job_id, job.placement)
                changes["placement"] = ()
            elif job.status not in HOLDING and status in HOLDING:
                self.cluster.allocate(job.job_id, changes["placement"])
            if status in TERMINAL:
                changes["ended_at"] = now
            if job.promise is not None:
                changes["promise"] = None
        return replace(job, status=status, updated_at=now, revision=job.revision + 1, **changes)

    def _undo(self, recorded: Transition) -> None:
        for job_id, job in recorded.before.items():
            self._put(job_id, job)
        for node_id, drain in recorded.drained.items():
            self.cluster.set_drain(node_id, drain)
        if recorded.nodes_before is not None:
            self.cluster.set_nodes(recorded.nodes_before)
        self._allocate_all()

    def _allocate_all(self) -> None:
        """Have taken what the jobs hold, and nothing else."""
        self.cluster.release_all()
        for job in self._holding.values():
            self.cluster.allocate(job.job_id, job.placement)

    def validate(self) -> None:
        """Raise AssertionError unless what is taken is what the jobs hold."""
        self.cluster.validate()
        self.waiting.validate()
        self.candidates.validate()
        self.usage.validate([*self._holding.values(), *self._promised.values()])
        assert self.promised == {
            job_id: job for job_id, job in self.jobs.items() if job.promise is not None
        }
        assert all(job.status is Status.QUEUED for job in self.promised.values())
        assert self.holding == {
            job_id: job for job_id, job in self.jobs.items() if job.status in HOLDING
        }
        held: dict[str, set[str]] = {node_id: set() for node_id in self.cluster.nodes}
        for job in self.jobs.values():
            assert job.status not in TERMINAL, job
            assert bool(job.placement) == (job.status in HOLDING), job
            for allocation in job.placement:
                if allocation.node_id in held:
                    held[allocation.node_id].add(job.job_id)
        for node in self.cluster.nodes.values():
            assert node.job_ids == held[node.spec.node_id], node
            allocations = [
                allocation
                for job_id in node.job_ids
                for allocation in self.jobs[job_id].placement
                if allocation.node_id == node.spec.node_id
            ]
            assert node.taken_cpus == sum(allocation.cpus for allocation in allocations), node
            assert node.taken_memory == sum(allocation.memory for allocation in allocations), node
            assert sorted(node.taken_gpus) == sorted(
                index for allocation in allocations for index in allocation.gpus
            ), node
