"""What a submission, a decision, a cancellation and a page of the queue cost against how many jobs
wait."""

import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from time import process_time
from typing import Final

from app.coordinator.cluster.gpus import GpuMeter
from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.queue_rules import (
    Limits,
    QueueOrder,
    QueueRules,
    SchedulingRules,
    TenantRules,
)
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.cluster_view import ClusterView
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import RunEnd, Transition
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

#: How many times as much it may cost with very many.
LIMIT: Final = 2.5
FEW: Final = 100
_GIB: Final = 1 << 30
_NOW: Final = 1_700_000_000_000_000
#: Jobs that hold all GPUs and cores at the beginning; one more ends in each round.
_HOLDERS: Final = 64

#: The request and the tenant of a job, by its number.
Kind = Callable[[int], JobRecord]


def _job(number: int, request: ResourceRequest, *, tenant: str = "t", limit: int = 0) -> JobRecord:
    submission = SubmitJobRequest(name="job")
    submission.scheduling_config.max_runtime_seconds = limit
    return JobRecord(
        job_id=f"job-{number:07}",
        tenant_id=tenant,
        user_id="u",
        name="job",
        submission=submission,
        resource_request=request,
        created_at=_NOW + number,
        updated_at=_NOW + number,
    )


def _same(number: int) -> JobRecord:
    return _job(number, ResourceRequest(gpus=1, cpus=0))


def _different(number: int) -> JobRecord:
    return _job(number, ResourceRequest(gpus=1, cpus=0, memory=number + 1), limit=number + 60)


def _mixed(number: int) -> JobRecord:
    choose = random.Random(number)
    request = ResourceRequest(
        gpus=choose.choice([0, 1, 1, 2, 4, 8]),
        nodes=choose.choice([1, 1, 1, 1, 2]),
        cpus=choose.choice([0, 2, 4]),
        memory=choose.choice([0, 8, 16]) * _GIB,
    )
    return _job(
        number, request, limit=choose.choice([0, 600, 3600, 7200, choose.randrange(90_000)])
    )


def _tenants(number: int) -> JobRecord:
    return replace(_mixed(number), tenant_id=f"tenant-{number % 997}")


def _made_up(number: int) -> JobRecord:
    return replace(_tenants(number), queue_name=f"queue-{number}")


_FAIR: Final = SchedulingRules({"default": QueueRules(QueueOrder.FAIR)})
_ANY: Final = SchedulingRules(
    {"*": QueueRules(tenant_limits=Limits(jobs=4))}, {"*": TenantRules(Limits(gpus=64))}
)
KINDS: Final[dict[str, tuple[Kind, SchedulingRules]]] = {
    "all ask for the same": (_same, SchedulingRules()),
    "all ask for something else": (_different, SchedulingRules()),
    "mixed requests": (_mixed, SchedulingRules()),
    "mixed, a fair queue of 997 tenants": (_tenants, _FAIR),
    "mixed, a queue of its own for each": (_made_up, _ANY),
}


class _Bench:
    """A scheduler and its store, with a number of jobs that wait."""

    def __init__(
        self, kind: Kind, rules: SchedulingRules, waiting: int, store: SqliteStore
    ) -> None:
        self._kind = kind
        self._store = store
        self._number = 10_000_000
        # With few jobs, each of many tenants has one.
        self._page_size = 20 if kind(0).tenant_id == kind(1).tenant_id else 1
        cluster = Cluster(
            NodeSpec(f"n{n}", f"n{n}", 64, 512 * _GIB, (GpuSpec("A100", 80 * _GIB),) * 8)
            for n in range(8)
        )
        self.scheduler = Scheduler(
            cluster=cluster, clock=lambda: _NOW + self._number, run_times=RunTimes(), rules=rules
        )
        self._view = ClusterView(
            self.scheduler, gpus=GpuMeter(()), clock=lambda: _NOW, commits=lambda: 0
        )
        jobs = []
        for number in range(_HOLDERS):
            job = _job(number, ResourceRequest(gpus=1, cpus=8))
            placement = cluster.place(job.resource_request)
            assert placement is not None
            cluster.allocate(job.job_id, placement)
            jobs.append(replace(job, status=Status.TRAINING, placement=placement))
        cluster.release_all()
        jobs += [
            replace(kind(number), status=Status.QUEUED)
            for number in range(_HOLDERS, _HOLDERS + waiting)
        ]
        self._save(jobs)
        problems = self.scheduler.restore(jobs)
        assert not problems

    def _save(self, jobs: list[JobRecord]) -> None:
        with self._store.transaction():
            self._store.save_jobs(jobs)

    @contextmanager
    def _change(self) -> Iterator[list[Transition]]:
        steps: list[Transition] = []
        with self.scheduler.changing():
            yield steps
            self._save(list(steps[-1].newest().values()))

    def submission(self) -> float:
        """CPU seconds of one; the job is taken away again."""
        self._number += 1
        job = self._kind(self._number)
        began = process_time()
        with self._change() as steps:
            steps.append(self.scheduler.submit(job))
        spent = process_time() - began
        with self._change() as steps:
            steps.append(self.scheduler.cancel(job.job_id, ""))
        return spent

    def cancellation(self) -> float:
        """CPU seconds of one of a job in the middle of the queue; it is submitted again."""
        waiting = self.scheduler.waiting
        job = next(islice(waiting, len(waiting) // 2, None))
        began = process_time()
        with self._change() as steps:
            steps.append(self.scheduler.cancel(job.job_id, ""))
        spent = process_time() - began
        self._number += 1
        with self._change() as steps:
            steps.append(self.scheduler.submit(self._kind(self._number)))
        return spent

    def page(self) -> float:
        """CPU seconds of a page of the queue, with positions, waits and reasons."""
        tenant = next(iter(self.scheduler.waiting)).tenant_id
        began = process_time()
        page = self._view.queue(tenant, page_size=self._page_size)
        spent = process_time() - began
        assert page.queued_jobs
        return spent

    def decision(self) -> float:
        """CPU seconds of what follows when a run ends."""
        job = next(job for job in self.scheduler.holding.values() if job.status is Status.TRAINING)
        began = process_time()
        with self._change() as steps:
            steps.append(self.scheduler.run_ended(job.job_id, RunEnd(exit_code=1)))
        spent = process_time() - began
        for other in list(self.scheduler.holding.values()):
            if other.status is Status.SCHEDULING:
                with self._change() as steps:
                    steps.append(self.scheduler.preparing(other.job_id))
                with self._change() as steps:
                    steps.append(self.scheduler.prepared(other.job_id))
        return spent


_MEASURES: Final[dict[str, Callable[[_Bench], float]]] = {
    "submission": _Bench.submission,
    "cancellation": _Bench.cancellation,
    "page": _Bench.page,
    "decision": _Bench.decision,
}

#: What `prepared` measures.
MEASURED: Final = ("scheduler: submission", "scheduler: decision")


@contextmanager
def prepared(jobs: int, *, times: int = 4) -> Iterator[Callable[[], dict[str, float]]]:
    """What measures how many times more mixed requests cost with so many waiting jobs than with
    `FEW`: the middle of some; it may be called `FEW // (2 * times)` times at most."""
    kind, rules = KINDS["mixed requests"]
    with ExitStack() as stack:
        few, many = (
            _opened(stack, kind, rules, waiting, f"{waiting:,} waiting jobs")
            for waiting in (FEW, jobs)
        )

        def measure() -> dict[str, float]:
            found = {}
            for name, cost in zip(MEASURED, (_Bench.submission, _Bench.decision), strict=True):
                spent = [(cost(few), cost(many)) for _ in range(times)]
                low, high = (median(each) for each in zip(*spent, strict=True))
                found[name] = high / low
            return found

        yield measure


def report(sizes: Sequence[int], *, rounds: int) -> bool:
    """Print the table; whether something costs too much."""
    columns = " ".join(f"{f'{size:,}':>10} {'ratio':>6}" for size in sizes)
    print(f"{'microseconds of CPU, the middle':<52} {FEW:>7,} {columns}")
    failed = False
    for name, (kind, rules) in KINDS.items():
        with ExitStack() as stack:
            benches = [
                _opened(stack, kind, rules, waiting, f"{name}: {waiting:,} jobs")
                for waiting in (FEW, *sizes)
            ]
            for what, measure in _MEASURES.items():
                spent: list[list[float]] = [[] for _ in benches]
                for turn in range(min(rounds, FEW // 2)):
                    _progress(f"{name}: {what} {turn + 1}")
                    for bench, times in zip(benches, spent, strict=True):
                        times.append(measure(bench) * 1e6)
                few, *many = map(median, spent)
                good = max(many) <= LIMIT * few
                failed |= not good
                _progress("")
                told = " ".join(f"{each:>10,.0f} {each / few:>5.2f}x" for each in many)
                print(f"{f'{name}: {what}':<52} {few:>7,.0f} {told}{'' if good else '  MISSED'}")
    print(f"{'MISSED' if failed else 'met'}: at most {LIMIT:g} times what it costs with {FEW}")
    return failed


def _opened(
    stack: ExitStack, kind: Kind, rules: SchedulingRules, waiting: int, what: str
) -> _Bench:
    _progress(f"filling {what}")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="scaimind-bench-"))
    store = SqliteStore(Path(folder, "coordinator.db"))
    stack.callback(store.close)
    return _Bench(kind, rules, waiting, store)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text.startswith("filling"):
        print(text, file=sys.stderr, flush=True)
