"""A scheduler that is stepped by hand: what it places runs at once, on a clock of the test's."""

from collections.abc import Iterable, Sequence
from typing import Final

from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.queue_rules import SchedulingRules
from app.coordinator.jobs.states import RUNNING, TERMINAL, Status
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.reasons import JobsReason
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import Export, Prepare, RunEnd, Stop, Transition
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

SECOND: Final = 1_000_000
GIB: Final = 1 << 30


def node(name: str, gpus: int = 0, *, cpus: int = 16, **labels: str) -> NodeSpec:
    """A node with GPUs of one type."""
    return NodeSpec(name, name, cpus, 64 * GIB, (GpuSpec("A100", 80 * GIB),) * gpus, labels=labels)


def record(
    name: str,
    *,
    gpus: int = 0,
    cpus: int = 0,
    memory: int = 0,
    nodes: int = 1,
    on: Sequence[str] = (),
    limit: int = 0,
    tenant: str = "t",
    queue: str = "default",
    priority: int = 5,
    preemptible: bool = False,
    created_at: int = 1,
) -> JobRecord:
    """A job; `limit` is its max_runtime_seconds."""
    submission = SubmitJobRequest(name=name)
    submission.scheduling_config.max_runtime_seconds = limit
    submission.scheduling_config.preemptible = preemptible
    return JobRecord(
        job_id=name,
        tenant_id=tenant,
        user_id="u",
        name=name,
        submission=submission,
        resource_request=ResourceRequest(
            nodes=nodes, gpus=gpus, cpus=cpus, memory=memory, node_ids=tuple(on)
        ),
        created_at=created_at,
        updated_at=created_at,
        priority=priority,
        queue_name=queue,
    )


class Bench:
    """A scheduler and its nodes. Jobs that are to stop go on until the test ends them."""

    def __init__(
        self,
        *nodes: NodeSpec,
        rules: SchedulingRules | None = None,
        topology: str = "",
        growing: bool = False,
    ) -> None:
        self.now = 1_000_000 * SECOND
        self.cluster = Cluster(nodes, topology=topology, growing=growing)
        self.rules = rules
        self.scheduler = self.new_scheduler(self.cluster)
        self.started: list[str] = []
        self.asked_to_stop: list[str] = []
        self.ended: dict[str, Status] = {}

    def new_scheduler(self, cluster: Cluster) -> Scheduler:
        """A scheduler that knows no job yet."""
        return Scheduler(
            cluster=cluster, clock=lambda: self.now, run_times=RunTimes(), rules=self.rules
        )

    def submit(self, job: JobRecord) -> Status:
        """Submit a job, and return what has become of it."""
        self.now += 1
        with self.scheduler.changing():
            step = self.scheduler.submit(job)
        self.follow(step)
        return self.status(job.job_id)

    def follow(self, step: Transition) -> None:
        """Carry out what is to be done, but for stops."""
        for job in step.changed:
            if job.status in TERMINAL:
                self.ended[job.job_id] = job.status
        for instruction in step.instructions:
            match instruction:
                case Prepare(job):
                    self.started.append(job.job_id)
                    for event in (self.scheduler.preparing, self.scheduler.prepared):
                        with self.scheduler.changing():
                            next_step = event(job.job_id)
                        self.follow(next_step)
                case Export(job):
                    with self.scheduler.changing():
                        next_step = self.scheduler.exported(job.job_id, "scaidrive://t/out")
                    self.follow(next_step)
                case Stop(job, _):
                    self.asked_to_stop.append(job.job_id)
        self.scheduler.validate()

    def end(self, *names: str) -> None:
        """End runs: by themselves, or since they were asked to stop."""
        for name in names:
            stopped = bool(self.scheduler.jobs[name].stop_reason)
            with self.scheduler.changing():
                step = self.scheduler.run_ended(name, RunEnd(exit_code=0, stopped=stopped))
            self.follow(step)

    def drain(self, name: str) -> None:
        """Drain a node."""
        with self.scheduler.changing():
            step = self.scheduler.drain(name, force=False, reason="")
        self.follow(step)

    def pass_seconds(self, seconds: int) -> None:
        """Set the clock forward. Nobody looks at it yet."""
        self.now += seconds * SECOND

    def status(self, name: str) -> Status:
        """The state of a job."""
        return self.ended.get(name) or self.scheduler.jobs[name].status

    def runs(self, name: str) -> bool:
        """Whether a job's run goes on."""
        return self.status(name) in RUNNING

    def reason(self, name: str) -> JobsReason:
        """Why a job waits."""
        return self.scheduler.reasons().of(self.scheduler.jobs[name])

    def submit_all(self, jobs: Iterable[JobRecord]) -> None:
        """Submit jobs in this order."""
        for job in jobs:
            self.submit(job)
