"""A day of jobs, decided by the scheduler, and in strict order."""

import heapq
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean, quantiles
from typing import Final

from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import Export, Prepare, RunEnd, Transition
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest
from scripts.bench.scheduler.traces import TraceJob

_SECOND: Final = 1_000_000
_GIB: Final = 1 << 30


@dataclass(slots=True)
class Day:
    """What has become of the jobs."""

    waits: list[float] = field(default_factory=list)
    gpu_seconds: float = 0.0
    #: When the last run ended.
    ended: float = 0.0


def request_of(job: TraceJob, *, gpus: int) -> ResourceRequest:
    """What a job asks for, on nodes with so many GPUs."""
    nodes = max(-(-job.gpus // gpus), 1)
    each = -(-job.gpus // nodes)
    return ResourceRequest(nodes=nodes, gpus=each, cpus=0 if each else 2)


def cluster_of(nodes: int, gpus: int) -> Cluster:
    """Nodes that are alike."""
    return Cluster(
        NodeSpec(f"n{n}", f"n{n}", 8 * gpus, 64 * gpus * _GIB, (GpuSpec("GPU", 0),) * gpus)
        for n in range(nodes)
    )


def strict(trace: Sequence[TraceJob], *, nodes: int, gpus: int) -> Day:
    """Nobody is passed: the next job starts when it has room."""
    cluster, day = cluster_of(nodes, gpus), Day()
    waiting: deque[tuple[int, TraceJob]] = deque()
    running: list[tuple[float, int]] = []
    placements: dict[int, tuple[Allocation, ...]] = {}
    arrivals = deque(enumerate(trace))
    while arrivals or running:
        if arrivals and (not running or arrivals[0][1].submitted <= running[0][0]):
            now = arrivals[0][1].submitted
            waiting.append(arrivals.popleft())
        else:
            now, ended = heapq.heappop(running)
            cluster.release(str(ended), placements.pop(ended))
            day.ended = now
        while waiting:
            number, job = waiting[0]
            placement = cluster.place(request_of(job, gpus=gpus))
            if placement is None:
                break
            waiting.popleft()
            cluster.allocate(str(number), placement)
            placements[number] = placement
            heapq.heappush(running, (now + job.runs, number))
            day.waits.append(now - job.submitted)
            day.gpu_seconds += job.runs * job.gpus
    return day


class Replay:
    """The coordinator's scheduler on a clock of its own."""

    def __init__(self, trace: Sequence[TraceJob], *, nodes: int, gpus: int) -> None:
        self._trace = trace
        self._gpus = gpus
        self._now = 0
        self._scheduler = Scheduler(
            cluster=cluster_of(nodes, gpus), clock=lambda: self._now, run_times=RunTimes()
        )
        self._running: list[tuple[int, int]] = []
        self._day = Day()

    def play(self) -> Day:
        """Play it to the end of the last run."""
        arrivals = deque(enumerate(self._trace))
        while arrivals or self._running:
            submitted = round(arrivals[0][1].submitted * _SECOND) if arrivals else None
            if submitted is not None and (not self._running or submitted <= self._running[0][0]):
                self._now = submitted
                number, job = arrivals.popleft()
                if number % 200 == 0:
                    print(f"job {number:,} of {len(self._trace):,}", file=sys.stderr, flush=True)
                self._submit(number, job)
            else:
                self._now, number = heapq.heappop(self._running)
                self._day.ended = self._now / _SECOND
                with self._scheduler.changing():
                    step = self._scheduler.run_ended(str(number), RunEnd(exit_code=0))
                self._follow(step)
        return self._day

    def _submit(self, number: int, job: TraceJob) -> None:
        submission = SubmitJobRequest(name="job")
        submission.scheduling_config.max_runtime_seconds = job.limit
        record = JobRecord(
            job_id=str(number),
            tenant_id=job.user,
            user_id="u",
            name="job",
            submission=submission,
            resource_request=request_of(job, gpus=self._gpus),
            created_at=self._now,
            updated_at=self._now,
        )
        with self._scheduler.changing():
            step = self._scheduler.submit(record)
        self._follow(step)

    def _follow(self, step: Transition) -> None:
        for instruction in step.instructions:
            match instruction:
                case Prepare(job):
                    self._start(job.job_id)
                case Export(job):
                    with self._scheduler.changing():
                        next_step = self._scheduler.exported(job.job_id, "")
                    self._follow(next_step)

    def _start(self, job_id: str) -> None:
        number = int(job_id)
        job = self._trace[number]
        heapq.heappush(self._running, (self._now + round(job.runs * _SECOND), number))
        self._day.waits.append(self._now / _SECOND - job.submitted)
        self._day.gpu_seconds += job.runs * job.gpus
        for event in (self._scheduler.preparing, self._scheduler.prepared):
            with self._scheduler.changing():
                step = event(job_id)
            self._follow(step)


def report(trace: Sequence[TraceJob], *, nodes: int, gpus: int) -> None:
    """Print both."""
    cluster = cluster_of(nodes, gpus)
    fitting = [job for job in trace if cluster.satisfiable(request_of(job, gpus=gpus))]
    limits = sum(bool(job.limit) for job in fitting)
    print(
        f"\n{len(fitting):,} jobs on {nodes} nodes with {gpus} GPUs, {limits:,} of them with a"
        f" limit; {len(trace) - len(fitting):,} ask for more than there is"
    )
    days = {
        "strict order": strict(fitting, nodes=nodes, gpus=gpus),
        "the scheduler": Replay(fitting, nodes=nodes, gpus=gpus).play(),
    }
    print(
        f"{'':<15} {'GPUs used':>9} {'done after':>10}"
        f" {'mean wait':>10} {'p50':>9} {'p90':>9} {'p99':>9} {'longest':>9}"
    )
    for name, day in days.items():
        assert len(day.waits) == len(fitting), "every job has started"
        used = day.gpu_seconds / (day.ended * nodes * gpus)
        cuts = quantiles(day.waits, n=100) if len(day.waits) > 1 else day.waits * 99
        shown = (mean(day.waits), cuts[49], cuts[89], cuts[98], max(day.waits))
        waits = " ".join(f"{seconds / 60:>9.1f}" for seconds in shown)
        print(f"{name:<15} {used:>8.1%} {day.ended / 3600:>9.1f}h  {waits}")
    print("Waits are minutes.")
