"""The machine's clock may be set at any moment: nothing is measured by it, and orders stay."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.coordinator.cluster.node_specs import NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.rows import record_of, values_of
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.steps.run_times import keep_run_times
from app.coordinator.jobs.times import MOST_AHEAD, Moment, Stopwatch, creation_time
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.scheduler import Scheduler, SchedulerEvent
from app.coordinator.scheduling.transitions import RunEnd, Transition
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

SECOND = 1_000_000
HOUR = 3600 * SECOND
NOON = 1_700_000_000 * SECOND


class Machine:
    """A scheduler on a machine with one core; its clock can be set, its stopwatch cannot."""

    def __init__(self, *, boot: str = "boot", newest_creation: int = 0) -> None:
        self.now = NOON
        self.up = 50_000 * SECOND
        self.run_times = RunTimes()
        self.scheduler = Scheduler(
            cluster=Cluster([NodeSpec("n", "n", 1, 1 << 30)]),
            clock=lambda: self.now,
            run_times=self.run_times,
            stopwatch=Stopwatch(boot, lambda: self.up),
            newest_creation=newest_creation,
        )

    def record(self, job_id: str, **changes: Any) -> JobRecord:
        submission = SubmitJobRequest()
        submission.scheduling_config.max_runtime_seconds = 600
        job = JobRecord(
            job_id=job_id,
            tenant_id="t",
            user_id="u",
            name="job",
            submission=submission,
            resource_request=ResourceRequest(cpus=1),
            created_at=self.now,
            updated_at=self.now,
        )
        return replace(job, **changes)

    def submit(self, job_id: str) -> JobRecord:
        self.apply(lambda scheduler: scheduler.submit(self.record(job_id)))
        return self.scheduler.jobs[job_id]

    def begin(self, job_id: str) -> JobRecord:
        self.submit(job_id)
        self.apply(lambda scheduler: scheduler.preparing(job_id))
        self.apply(lambda scheduler: scheduler.prepared(job_id))
        return self.scheduler.jobs[job_id]

    def apply(self, event: SchedulerEvent) -> Transition:
        with self.scheduler.changing() as transition:
            event(self.scheduler)
        return transition

    def passes(self, micros: int) -> None:
        self.now += micros
        self.up += micros


@pytest.mark.parametrize("step", [HOUR, -HOUR, 10_000 * HOUR, -10_000 * HOUR])
def test_a_clock_that_is_set_neither_ends_a_run_nor_keeps_it(step: int) -> None:
    machine = Machine()
    machine.begin("a")
    machine.now += step
    machine.apply(Scheduler.tick)
    assert machine.scheduler.jobs["a"].status is Status.TRAINING
    assert machine.scheduler.next_tick() == 600 * SECOND
    machine.passes(599 * SECOND)
    machine.apply(Scheduler.tick)
    assert machine.scheduler.jobs["a"].status is Status.TRAINING
    machine.passes(SECOND)
    assert machine.scheduler.next_tick() == 0
    machine.apply(Scheduler.tick)
    assert "max_runtime_seconds of 600" in machine.scheduler.jobs["a"].stop_message


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_run_times_are_what_passed(step: int) -> None:
    machine = Machine()
    machine.begin("a")
    machine.passes(60 * SECOND)
    machine.now += step
    machine.submit("b")
    # Seen by nobody, its limit is what is expected of it.
    assert machine.scheduler.forecast().waits == {"b": 540}
    transition = machine.apply(lambda scheduler: scheduler.run_ended("a", RunEnd(exit_code=0)))
    (ended,) = (job for job in transition.changed[-1:] if job.job_id == "a")
    assert ended.ran == 60 * SECOND
    assert machine.run_times.expected(machine.scheduler.jobs["b"]) == 60
    assert ended.updated_at >= ended.run_started_at


def test_the_order_of_jobs_is_that_of_their_submission() -> None:
    machine = Machine(newest_creation=NOON + 5)
    machine.begin("z")
    for job_id, step in (("y", 0), ("x", -HOUR), ("w", -HOUR), ("v", 3 * HOUR), ("u", -HOUR)):
        machine.now += step
        machine.submit(job_id)
    assert [job.job_id for job in machine.scheduler.waiting] == list("yxwvu")
    times = [machine.scheduler.jobs[job_id].created_at for job_id in "zyxwvu"]
    assert times == sorted(set(times))
    assert times[0] > NOON + 5


def test_a_job_of_a_far_future_holds_no_clock_for_ever() -> None:
    assert creation_time(NOON, NOON + MOST_AHEAD) == NOON + MOST_AHEAD + 1
    assert creation_time(NOON, NOON + MOST_AHEAD + 1) == NOON


def test_a_run_that_is_found_again_is_measured_from_its_beginning() -> None:
    before = Machine()
    job = before.begin("a")
    after = Machine()
    after.up = before.up + 100 * SECOND
    after.now -= HOUR
    after.scheduler.restore([job])
    assert after.scheduler.next_tick() == 500 * SECOND


@pytest.mark.parametrize(
    ("began", "step", "left"),
    [
        # Of an earlier coordinator, which measured by the clock.
        (None, 100 * SECOND, 500),
        (None, -HOUR, 600),
        (None, 10_000 * HOUR, 0),
        # Of an earlier start of the machine.
        (Moment("earlier", 10**15), 100 * SECOND, 500),
        (Moment("earlier", 0), -HOUR, 600),
    ],
)
def test_a_run_of_an_unknown_beginning_is_measured_within_bounds(
    began: Moment | None, step: int, left: int
) -> None:
    job = replace(Machine().begin("a"), run_began=began)
    machine = Machine()
    machine.now += step
    machine.scheduler.restore([job])
    assert machine.scheduler.next_tick() == left * SECOND


def test_what_is_measured_is_stored(tmp_path: Path) -> None:
    job = replace(Machine().begin("a"), ran=7)
    with closing(SqliteStore(tmp_path / "coordinator.db")) as store:
        with store.transaction():
            store.save_jobs([job])
        (kept,) = store.unfinished()
        assert (kept.run_began, kept.ran) == (job.run_began, 7)
        assert store.newest_creation() == job.created_at


def test_run_times_of_earlier_coordinators_are_none_below_0(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.db"
    with closing(SqliteStore(path)) as store, store.transaction():
        store.save_jobs(
            Machine().record(
                job_id, status=Status.COMPLETED, run_started_at=NOON, ended_at=NOON + took
            )
            for job_id, took in (("a", 5 * SECOND), ("b", -HOUR), ("c", 2**62 - NOON))
        )
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        for row in db.execute("SELECT * FROM jobs").fetchall():
            state = {k: v for k, v in orjson.loads(row["state"]).items() if k != "ran"}
            db.execute("UPDATE jobs SET state = ?", (orjson.dumps(state).decode(),))
        keep_run_times(db)
        db.commit()
        ran = {row["job_id"]: record_of(row).ran for row in db.execute("SELECT * FROM jobs")}
    assert ran == {"a": 5 * SECOND, "b": 0, "c": 10 * 365 * 24 * HOUR}
    with closing(SqliteStore(path)) as store:
        assert [seconds for _, seconds in store.newest_run_times(10)] == [5, ran["c"] / SECOND]


def test_a_row_without_what_is_measured_is_read() -> None:
    job = Machine().begin("a")
    assert values_of(job)
    assert Stopwatch("boot", lambda: 10).since(Moment("boot", 20)) == 0
