"""What happens to a scheduler in an attack, and its state as the checks see it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from app.coordinator.cluster.node_specs import NodeReport
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.queue_rules import QueueOrder, SchedulingRules
from app.coordinator.jobs.states import RUNNING, TERMINAL, Status
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.scheduler import Scheduler, SchedulerEvent
from app.coordinator.scheduling.transitions import Abandon, Export, Prepare, RunEnd, Transition
from scripts.adversary.worlds import SECOND, World, job_of

#: Looks at a decision: the jobs and the nodes before it, and what it led to.
Check = Callable[["Attack", Transition], None]
_BEGAN: Final = 1_000_000 * SECOND


@dataclass(frozen=True, slots=True)
class Victim:
    """A job that was preempted."""

    job: JobRecord
    #: What held something when it was stopped or had been promised it, but for itself.
    before: frozenset[str]
    #: Those that waited then and were ahead of it.
    ahead: frozenset[str]
    #: What has been stopped since for those that came back ahead of it, such as were resumed.
    stopped_later: tuple[JobRecord, ...] = ()


class Attack:
    """One scheduler, and events at random. What it places runs at once."""

    def __init__(self, seed: int, world: World, check: Check) -> None:
        self.choose = Random(seed)
        self.world = world
        self.now = _BEGAN
        self._newest = 0
        self._outside = False
        self._check = check
        self.cluster = Cluster(world.nodes, topology=world.topology)
        self.scheduler = self.new_scheduler(self.cluster)
        self._number = 0
        #: In which order runs end in what is tried, which changes nothing of the attack.
        self.choose_ends = Random(seed)
        #: Who was preempted, until it is seen what for.
        self.victims: dict[str, Victim] = {}
        self._lost: set[str] = set()
        #: What was done, for whoever reads of a failure.
        self.story: list[str] = []

    def new_scheduler(self, cluster: Cluster) -> Scheduler:
        """A scheduler that knows no job yet."""
        return Scheduler(
            cluster=cluster,
            clock=lambda: self.now,
            run_times=RunTimes(),
            rules=self.world.rules,
            newest_creation=self._newest,
        )

    def twin(self, change: Callable[[JobRecord], JobRecord] = lambda job: job) -> Scheduler:
        """A scheduler that was started again with what is stored, after a change."""
        cluster = Cluster((), topology=self.world.topology)
        cluster.set_nodes(self.cluster.reports())
        for node_id, node in self.cluster.nodes.items():
            if node.drain is not None:
                cluster.set_drain(node_id, node.drain)
        scheduler = self.new_scheduler(cluster)
        problems = scheduler.restore(map(change, self.scheduler.jobs.values()))
        assert not problems, problems
        return scheduler

    def do(self, what: str, event: SchedulerEvent, *, outside: bool = False) -> None:
        """Have something happen, and check what comes of it. What comes from `outside` may have
        preempted jobs stopped in vain."""
        self._outside = outside
        self.story.append(f"{(self.now - _BEGAN) / SECOND:.0f}: {what}")
        with self.scheduler.changing():
            step = event(self.scheduler)
        self._newest = max([self._newest, *(job.created_at for job in step.changed)])
        self.scheduler.validate()
        self._check(self, step)
        self._follow(step)
        if self.scheduler.next_tick() == 0 and what != "tick":
            # As the coordinator does at once.
            self.do("tick", Scheduler.tick)

    def excuses(self, step: Transition) -> bool:
        """Whether a step has something from outside: what may make other room, or take room that
        was there. A new job does if it comes ahead of one that waits, and for which runs may be
        being stopped; one that comes back does not."""
        return self._outside or any(
            job.stop_reason not in (StopReason.NONE, StopReason.PREEMPT)
            and (before is None or before.stop_reason is not job.stop_reason)
            for job in step.newest().values()
            for before in (step.before[job.job_id],)
        )

    def _follow(self, step: Transition) -> None:
        given_up = {each.job_id for each in step.instructions if isinstance(each, Abandon)}
        for instruction in step.instructions:
            match instruction:
                case Prepare(job) if job.job_id not in given_up:
                    self._do_quietly(partial(Scheduler.preparing, job_id=job.job_id))
                    self._do_quietly(partial(Scheduler.prepared, job_id=job.job_id))
                case Export(job):
                    event = partial(Scheduler.exported, job_id=job.job_id, output_path="x")
                    self.do(f"export of {job.job_id}", event)

    def _do_quietly(self, event: SchedulerEvent) -> None:
        self.do("preparation", event)
        self.story.pop()

    def running(self) -> list[JobRecord]:
        """The jobs that run."""
        return [job for job in self.scheduler.jobs.values() if job.status in RUNNING]

    def step(self) -> None:
        """Do one of the things that happen."""
        actions = (
            (10, self._submit),
            (8, self._end),
            (3, self._pass_time),
            (1, self._cancel),
            (1, self._pause),
            (1, self._resume),
            (1, self._drain),
            (2, self._enable),
            (0.5, self._lose),
            (1, self._return),
        )
        weights, what = zip(*actions, strict=True)
        self.choose.choices(what, weights)[0]()

    def finish(self) -> None:
        """Let all come to an end: nothing new comes, and all nodes are there."""
        self._return()
        for node_id in self.cluster.nodes:
            event = partial(Scheduler.enable, node_id=node_id)
            self.do(f"enable {node_id}", event, outside=True)
        self.now += 100 * SECOND
        self.do("tick", Scheduler.tick)
        while running := self.running():
            self._end_run(self.choose.choice(running))

    def _submit(self) -> None:
        self.now += self.choose.choice([0, 0, 1, SECOND])
        for _ in range(10):
            self._number += 1
            job = job_of(self.choose, self.world, self._number, self.now)
            if not self.world.rules.never(job) and self.cluster.has(job.resource_request):
                break
        else:
            return
        self.do(f"submit {_told(job)}", lambda s: s.submit(job), outside=self._overtakes(job))

    def _overtakes(self, job: JobRecord) -> bool:
        """Whether a new job is ahead of one that waits, and for which runs may be being stopped."""
        if not self.victims:
            return False
        waiting = set().union(*(victim.ahead for victim in self.victims.values()))
        rules = self.world.rules

        def is_fair(one: JobRecord) -> bool:
            return rules.queue(one.queue_name).order is QueueOrder.FAIR

        # With the same priority, a new job comes first only where shares count.
        return any(
            urgency(rules, job) < urgency(rules, other) + (is_fair(job) or is_fair(other))
            for name in waiting
            if (other := self.scheduler.jobs.get(name)) and other.status is Status.QUEUED
        )

    def _end(self) -> None:
        if running := self.running():
            self._end_run(self.choose.choice(running))

    def _end_run(self, job: JobRecord) -> None:
        stopped = job.stop_reason is not StopReason.NONE
        end = RunEnd(exit_code=self.choose.choice([0, 0, 1]), stopped=stopped)
        if self.choose.random() < 0.1 and not stopped:
            end = RunEnd(exit_code=None, interruption="It was killed.")
        event = partial(Scheduler.run_ended, job_id=job.job_id, end=end)
        self.do(f"end of {job.job_id}", event, outside=not stopped)

    def _pass_time(self) -> None:
        left = self.scheduler.next_tick()
        if left is not None and self.choose.random() < 0.7:
            self.now += left
        else:
            self.now += self.choose.choice([1, 3, 10]) * SECOND
        self.do("tick", Scheduler.tick)

    def _cancel(self) -> None:
        if jobs := list(self.scheduler.jobs.values()):
            job = self.choose.choice(jobs)
            self.do(f"cancel {job.job_id}", lambda s: s.cancel(job.job_id, ""), outside=True)

    def _pause(self) -> None:
        if running := [job for job in self.running() if not job.stop_reason]:
            job = self.choose.choice(running)
            self.do(f"pause {job.job_id}", lambda s: s.pause(job.job_id, save_checkpoint=True))

    def _resume(self) -> None:
        if paused := [j for j in self.scheduler.jobs.values() if j.status is Status.PAUSED]:
            name = self.choose.choice(paused).job_id
            self.do(f"resume {name}", lambda s: s.resume(name, checkpoint_id="", resume_from=""))

    def _drain(self) -> None:
        name = self.choose.choice(list(self.cluster.nodes))
        force = self.choose.random() < 0.3
        event = partial(Scheduler.drain, node_id=name, force=force, reason="")
        self.do(f"drain {name} {force=}", event, outside=True)

    def _enable(self) -> None:
        if drained := [n for n, node in self.cluster.nodes.items() if node.drain is not None]:
            name = self.choose.choice(drained)
            self.do(f"enable {name}", lambda s: s.enable(name), outside=True)

    def _lose(self) -> None:
        name = self.choose.choice(self.world.nodes).node_id
        self._lost.add(name)
        self._report(f"lose {name}")
        for job in self.running():
            if name in job.node_ids:
                end = RunEnd(exit_code=None, failure="Its node was lost.", transient=True)
                event = partial(Scheduler.run_ended, job_id=job.job_id, end=end)
                self.do(f"loss of {job.job_id}", event, outside=True)

    def _return(self) -> None:
        if self._lost:
            self._lost.clear()
            self._report("all nodes are there")

    def _report(self, what: str) -> None:
        reports = [
            NodeReport(spec, "It was lost." if spec.node_id in self._lost else "")
            for spec in self.world.nodes
        ]
        self.do(what, lambda s: s.nodes_changed(reports), outside=True)


def urgency(rules: SchedulingRules, job: JobRecord) -> int:
    """The priority by which a job has its turn, negated."""
    return -5 if rules.queue(job.queue_name).order is QueueOrder.AGE else -job.priority


def ended(step: Transition) -> list[JobRecord]:
    """The jobs that ended in a step."""
    return [job for job in step.newest().values() if job.status in TERMINAL]


def _told(job: JobRecord) -> str:
    request = job.resource_request
    return (
        f"{job.job_id} tenant={job.tenant_id} queue={job.queue_name} priority={job.priority}"
        f" limit={job.max_runtime // SECOND} preemptible={job.preemptible} nodes={request.nodes}"
        f" gpus={request.gpus} type={request.gpu_type} gpu_memory={request.gpu_memory // 2**30}"
        f" cpus={request.cpus} memory={request.memory // 2**30} on={request.node_ids}"
    )
