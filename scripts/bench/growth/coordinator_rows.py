"""The one-machine coordinator: its queue, lists, checkpoints, curves and logs."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from app.coordinator.cluster.gpus import GpuMeter
from app.coordinator.cluster.node_specs import NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.database.sqlite import SqliteDatabase
from app.coordinator.jobs.listing import Filters, Order, list_jobs
from app.coordinator.jobs.messages import job_message
from app.coordinator.jobs.model import Checkpoint, JobRecord, Progress, ResourceRequest
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.metrics.downsampling import downsample
from app.coordinator.scheduling.cluster_view import ClusterView
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import Transition
from app.coordinator.service.logs.pages import list_logs
from app.coordinator.storage.job_directory import JobDir
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest
from generated.mindcoordinator.v1.watch_pb2 import ListJobLogsRequest
from scripts.bench.growth.row import Row, cpu
from scripts.bench.listing import fill
from scripts.bench.logs import write as write_log
from scripts.bench.metrics import write as write_metrics

_NOW: Final = 1_000_000_000
Measured = Iterator[Callable[[], float]]


def record(job_id: str, created_at: int) -> JobRecord:
    """A job that asks for a core."""
    return JobRecord(
        job_id=job_id,
        tenant_id="t",
        user_id="u",
        name=job_id,
        submission=SubmitJobRequest(name=job_id),
        resource_request=ResourceRequest(),
        created_at=created_at,
        updated_at=created_at,
        priority=5,
    )


class Machine:
    """A scheduler of one core with jobs that wait for it, and a store."""

    def __init__(self, waiting: int, folder: Path) -> None:
        self.scheduler = Scheduler(
            cluster=Cluster([NodeSpec("n", "n", 1, 1 << 40)]),
            clock=lambda: _NOW,
            run_times=RunTimes(),
        )
        self.store = SqliteStore(folder / "coordinator.db")
        self.view = ClusterView(
            self.scheduler, gpus=GpuMeter(()), clock=lambda: _NOW, commits=lambda: 0
        )
        jobs = [record(f"job-{number}", number + 1) for number in range(waiting + 1)]
        self.scheduler.restore(replace(job, status=Status.QUEUED) for job in jobs)
        with self.scheduler.changing() as transition:
            self.scheduler.tick()
        self.save(transition)
        self._names = count()

    def save(self, transition: Transition) -> None:
        """SqliteStore what has changed."""
        with self.store.transaction():
            newest = transition.newest()
            self.store.save_jobs(newest.values())
            for job_id, job in newest.items():
                self.store.save_checkpoints(transition.before[job_id], job)

    def submit(self) -> None:
        """Take up a job, tell how long it waits, and cancel it again."""
        job_id = f"new-{next(self._names)}"
        with self.scheduler.changing() as transition:
            self.scheduler.submit(record(job_id, _NOW))
        self.save(transition)
        self.scheduler.wait_of(self.scheduler.jobs[job_id], self.scheduler.forecast())
        with self.scheduler.changing() as transition:
            self.scheduler.cancel(job_id, "")
        self.save(transition)
        self.scheduler.next_tick()


@contextmanager
def submission(size: int, folder: Path) -> Measured:
    """A submission and its cancellation, with so many jobs waiting."""
    machine = Machine(size, folder)
    with closing(machine.store):
        yield cpu(machine.submit, times=50)


@contextmanager
def queue(size: int, folder: Path) -> Measured:
    """The first page of the queue."""
    machine = Machine(size, folder)
    with closing(machine.store):
        yield cpu(partial(machine.view.queue, "t", page_size=20), times=50)


@contextmanager
def listing(size: int, folder: Path, *, column: str, labels: dict[str, str]) -> Measured:
    """A page of jobs, which are counted, too."""
    path = folder / "coordinator.db"
    fill(path, size)
    with closing(SqliteDatabase.open(path)) as db:
        db.row_factory = sqlite3.Row
        page = partial(
            list_jobs,
            db,
            "t",
            filters=Filters(labels=labels),
            order=Order(column),
            page_size=20,
            page_token="",
        )
        yield cpu(page, times=10)


@contextmanager
def checkpoints(size: int, folder: Path) -> Measured:
    """A job's progress and its answer, with so many checkpoints."""
    machine = Machine(0, folder)
    scheduler = machine.scheduler
    made = tuple(Checkpoint(f"step-{n}", n, 1, 1, n + 1, "x", 2) for n in range(size))
    steps = count()

    def tick() -> None:
        with scheduler.changing() as transition:
            progress = Progress(step=next(steps), total_steps=1, epoch=0.0, loss=1.0)
            scheduler.observed("job-0", progress=progress, checkpoints=(*made,))
        machine.save(transition)
        job_message(scheduler.jobs["job-0"])

    with closing(machine.store):
        for event in (Scheduler.preparing, Scheduler.prepared):
            with scheduler.changing():
                event(scheduler, "job-0")
        tick()
        yield cpu(tick, times=20)


@contextmanager
def metrics(size: int, folder: Path) -> Measured:
    """A thousand points of a curve."""
    write_metrics(folder, size)
    yield cpu(partial(downsample, folder, 1000), times=1)


@contextmanager
def logs(size: int, folder: Path) -> Measured:
    """A page of 100 lines in the middle of a log."""
    directory = JobDir(folder)
    write_log(directory.log, size)
    request = ListJobLogsRequest(before_offset=size // 2, page_size=100)
    yield cpu(partial(list_logs, directory, request, ended=True), times=10)


def _listing(name: str, column: str = "created_at", **labels: str) -> Row:
    prepared = partial(listing, column=column, labels=labels)
    # What is counted is the list: 20 jobs cost the same, and a count little more for each job.
    return Row(name, "jobs", (1_000, 10_000, 50_000), 0.6, prepared)


ROWS: Final = (
    Row("submission", "waiting jobs", (10, 1_000, 20_000), 0.12, submission),
    Row("queue", "waiting jobs", (20, 1_000, 20_000), 0.12, queue),
    _listing("list"),
    _listing("list-by-update", "updated_at"),
    _listing("list-by-priority", "priority"),
    _listing("list-by-name", "name"),
    _listing("list-by-label", team="team-7"),
    Row("checkpoints", "checkpoints", (100, 1_000, 10_000), 0.2, checkpoints),
    Row("logs", "lines", (10_000, 100_000, 500_000), 0.1, logs),
    Row("metrics", "snapshots", (2_000, 20_000, 200_000), 0.4, metrics),
)
