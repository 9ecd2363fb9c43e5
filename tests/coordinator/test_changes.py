"""A change of jobs happens in memory, on disk and in what is set going, or in none of them."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.database.sqlite import SqliteDatabase
from app.coordinator.engines.local.exit_status import interruption_of
from app.coordinator.errors import RequestError
from app.coordinator.execution.changes import Change, JobChanges
from app.coordinator.jobs.events import JobEvents
from app.coordinator.jobs.model import Checkpoint, JobRecord, Progress, ResourceRequest
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import RUNNING, Status
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.scheduler import Scheduler, SchedulerEvent
from app.coordinator.scheduling.transitions import Instruction, RunEnd, Transition
from app.coordinator.storage.disk_reserve import DiskReserve
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

SECOND = 1_000_000


class Injected(Exception):
    """What no code of ours expects."""


class Faults:
    """Raises at the n-th place that is passed, once."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._error: BaseException = Injected()
        self.raised = False

    @contextmanager
    def at(self, place: int, error: BaseException) -> Iterator[None]:
        self._left, self._error, self.raised = place, error, False
        try:
            yield
        finally:
            self._left = None

    def passed(self) -> None:
        if self._left is None:
            return
        if self._left == 0:
            self._left, self.raised = None, True
            raise self._error
        self._left -= 1

    def none_within(self, owner: Any, name: str) -> None:
        """Make what recovers from a failure no place."""
        call = getattr(owner, name)

        def wrapped(*given: Any) -> Any:
            self._left = None
            return call(*given)

        setattr(owner, name, wrapped)

    def around(self, owner: Any, name: str) -> None:
        """Make places before and behind each call of a method."""
        call = getattr(owner, name)

        def wrapped(*given: Any, **named: Any) -> Any:
            self.passed()
            result = call(*given, **named)
            self.passed()
            return result

        setattr(owner, name, wrapped)


class FaultyDatabase:
    """A database with a place before each statement. What it does of itself to recover has none."""

    def __init__(self, database: SqliteDatabase, faults: Faults) -> None:
        self._database = database
        self._faults = faults

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement != "ROLLBACK":
            self._faults.passed()
        return self._database.execute(statement, *values)

    write = SqliteDatabase.write
    transaction = SqliteDatabase.transaction
    _begun = SqliteDatabase._begun

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


@dataclass(frozen=True)
class Everything:
    """All that a change may change."""

    jobs: dict[str, JobRecord]
    drains: dict[str, str | None]
    taken: list[tuple[str, set[str], int, set[int]]]
    stored: dict[str, JobRecord]
    stored_drains: dict[str, str]
    carried_out: list[Instruction]


class Machine:
    """The scheduler and the store, changed together, with places for faults everywhere."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_000 * SECOND
        self.faults = Faults()
        gpus = (GpuSpec("A100", 80 << 30),) * 2
        self.cluster = Cluster(NodeSpec(f"n{n}", f"n{n}", 4, 1 << 40, gpus) for n in range(2))
        self.scheduler = Scheduler(
            cluster=self.cluster, clock=lambda: self.now, run_times=RunTimes()
        )
        self.store = SqliteStore(folder / "coordinator.db")
        self.carried_out: list[Instruction] = []
        self.handed_over: list[tuple[Instruction, Exception]] = []
        self.changes = JobChanges(
            scheduler=self.scheduler,
            store=self.store,
            # It never has room to give: what cannot be stored is not tried again.
            reserve=DiskReserve(folder / "missing" / "reserve"),
            secrets=JobSecrets(folder / "secrets"),
            job_events=JobEvents(limit=1),
            carry_out=self.carry_out,
            hand_over=lambda *given: self.handed_over.append(given),
        )
        for name in ("transition", "instruct", "set_drain"):
            self.faults.around(self.scheduler._table, name)
        self.faults.none_within(self.scheduler._table, "_undo")
        for name in ("allocate", "release"):
            self.faults.around(self.cluster, name)
        self.store._db = FaultyDatabase(self.store._db, self.faults)  # type: ignore[assignment]
        self.count = 0

    def carry_out(self, instruction: Instruction) -> None:
        self.carried_out.append(instruction)

    def everything(self) -> Everything:
        return Everything(
            jobs=dict(self.scheduler.jobs),
            drains={name: node.drain for name, node in self.cluster.nodes.items()},
            taken=[
                (node.spec.node_id, set(node.job_ids), node.taken_cpus, set(node.taken_gpus))
                for node in self.cluster.nodes.values()
            ],
            stored={job.job_id: job for job in self.store.unfinished()},
            stored_drains=self.store.drained_nodes(),
            carried_out=list(self.carried_out),
        )

    def check(self) -> None:
        """Memory and disk are the same, and what is taken is what jobs hold."""
        self.scheduler.validate()
        now = self.everything()
        assert now.jobs == now.stored
        drained = {name: drain for name, drain in now.drains.items() if drain is not None}
        assert drained == now.stored_drains

    def record(self, *, gpus: int, priority: int, preemptible: bool, retries: int) -> JobRecord:
        self.count += 1
        submission = SubmitJobRequest(name="job")
        submission.scheduling_config.preemptible = preemptible
        submission.training_config.max_retries = retries
        return JobRecord(
            job_id=f"j{self.count}",
            tenant_id="t",
            user_id="u",
            name="job",
            submission=submission,
            resource_request=ResourceRequest(gpus=gpus, cpus=1),
            created_at=self.now,
            updated_at=self.now,
            priority=priority,
        )

    def attempt(self, event: SchedulerEvent) -> None:
        """Apply an event with a fault at its first place, then at its second, and so on until no
        place is left; each failure changes nothing."""

        def change(scheduler: Scheduler) -> tuple[Transition, str]:
            self.faults.passed()
            transition = event(scheduler)
            self.faults.passed()
            return transition, "result"

        place = 0
        while True:
            error = [Injected(), sqlite3.OperationalError("full"), KeyboardInterrupt()][place % 3]
            before = self.everything()
            with self.faults.at(place, error):
                raised = self.applied(change)
            if raised is None:
                assert not self.faults.raised
                self.check()
                return
            assert self.everything() == before
            if isinstance(raised, RequestError):
                return
            assert raised is error
            place += 1

    def applied(self, change: Change[str]) -> BaseException | None:
        """Apply a change. Returns what it raised."""
        try:
            result = self.changes.apply(change, also=self.faults.passed)
        except (Injected, sqlite3.OperationalError, KeyboardInterrupt, RequestError) as error:
            return error
        assert result == "result"
        return None


def event_for(machine: Machine, draw: Callable[[int], int]) -> SchedulerEvent:
    """Something that may happen now."""
    kind = draw(10)
    if kind < 3 or not machine.scheduler.jobs:
        record = machine.record(
            gpus=draw(3), priority=draw(10), preemptible=bool(draw(2)), retries=draw(2)
        )
        return lambda scheduler: scheduler.submit(record)
    node_id = f"n{draw(2)}"
    if kind == 3:
        force = bool(draw(2))
        return lambda scheduler: scheduler.drain(node_id, force=force, reason="a fan")
    if kind == 4:
        return lambda scheduler: scheduler.enable(node_id)
    jobs = sorted(machine.scheduler.jobs.values(), key=lambda job: job.job_id)
    job = jobs[draw(len(jobs))]
    job_id = job.job_id
    if kind == 5:
        return lambda scheduler: scheduler.cancel(job_id, "enough")
    if kind == 6 and job.status is not Status.PAUSED:
        return lambda scheduler: scheduler.pause(job_id, save_checkpoint=True)
    if job.status is Status.SCHEDULING:
        return lambda scheduler: scheduler.preparing(job_id)
    if job.status is Status.PREPARING:
        return lambda scheduler: scheduler.prepared(job_id)
    if job.status in RUNNING:
        if draw(2):
            seen = (Checkpoint("step-1", 1, 8, machine.now, sequence=1, identity="1:1:1:1"),)
            return lambda scheduler: scheduler.observed(
                job_id, progress=Progress(step=1), checkpoints=seen
            )
        code = [0, 1, -9][draw(3)]
        end = RunEnd(exit_code=code, interruption=interruption_of(code))
        return lambda scheduler: scheduler.run_ended(job_id, end)
    if job.status is Status.EXPORTING:
        return lambda scheduler: scheduler.exported(job_id, "scaidrive://t/out")
    if job.status is Status.PAUSED:
        return lambda scheduler: scheduler.resume(job_id, checkpoint_id="", resume_from="")
    return Scheduler.tick


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_raises_at_whatever_place_all_of_a_change_happens_or_nothing(
    data: st.DataObject,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        for _ in range(data.draw(st.integers(4, 14))):
            machine.now += SECOND
            machine.attempt(event_for(machine, lambda n: data.draw(st.integers(0, n - 1))))
        machine.store.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.store.close()


def submitted(machine: Machine) -> JobRecord:
    record = machine.record(gpus=1, priority=5, preemptible=False, retries=0)

    def change(scheduler: Scheduler) -> tuple[Transition, JobRecord]:
        transition = scheduler.submit(record)
        return transition, transition.newest()[record.job_id]

    return machine.changes.apply(change)


def test_a_change_of_several_events_happens_as_a_whole(machine: Machine) -> None:
    first, second = submitted(machine), submitted(machine)
    before = machine.everything()

    def change(scheduler: Scheduler) -> tuple[Transition, None]:
        scheduler.cancel(first.job_id, "")
        scheduler.drain("n0", force=False, reason="a fan")
        scheduler.cancel(second.job_id, "")
        return scheduler.resume(second.job_id, checkpoint_id="", resume_from=""), None

    with pytest.raises(KeyError):
        machine.changes.apply(change)
    assert machine.everything() == before
    machine.check()

    def whole(scheduler: Scheduler) -> tuple[Transition, None]:
        scheduler.cancel(first.job_id, "")
        return scheduler.cancel(second.job_id, ""), None

    machine.changes.apply(whole)
    machine.check()
    assert not machine.scheduler.jobs


def test_only_a_job_s_newest_version_can_be_changed(machine: Machine) -> None:
    job = submitted(machine)
    machine.changes.apply(lambda scheduler: (scheduler.preparing(job.job_id), None))
    before = machine.everything()

    def change(scheduler: Scheduler) -> tuple[Transition, None]:
        scheduler._table.transition(job, message="of a version that is gone")
        return scheduler.tick(), None

    with pytest.raises(ValueError, match="newest version"):
        machine.changes.apply(change)
    assert machine.everything() == before


def test_a_change_cannot_apply_another_one(machine: Machine) -> None:
    job = submitted(machine)
    before = machine.everything()

    def nested(scheduler: Scheduler) -> tuple[Transition, None]:
        transition = scheduler.cancel(job.job_id, "")
        machine.changes.apply(lambda scheduler: (scheduler.tick(), None))
        return transition, None

    with pytest.raises(RuntimeError, match="cannot begin another"):
        machine.changes.apply(nested)
    assert machine.everything() == before

    def also() -> None:
        machine.changes.apply(lambda scheduler: (scheduler.tick(), None))

    with pytest.raises(RuntimeError, match="cannot begin another"):
        machine.changes.apply(lambda scheduler: (scheduler.cancel(job.job_id, ""), None), also=also)
    assert machine.everything() == before
    machine.check()


def test_a_change_cannot_return_another_transition(machine: Machine) -> None:
    job = submitted(machine)
    before = machine.everything()

    def change(scheduler: Scheduler) -> tuple[Transition, None]:
        scheduler.cancel(job.job_id, "")
        return Transition(), None

    with pytest.raises(RuntimeError, match="recorded"):
        machine.changes.apply(change)
    assert machine.everything() == before


def test_what_cannot_be_carried_out_is_its_job_s_owner_s_and_the_change_stays(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out = machine.changes._carry_out
    refused = submitted(machine)
    tried: list[str] = []

    def picky(instruction: Instruction) -> None:
        tried.append(instruction.job_id)
        if instruction.job_id == refused.job_id:
            raise Injected
        carry_out(instruction)

    monkeypatch.setattr(machine.changes, "_carry_out", picky)
    other = submitted(machine)
    tried.clear()

    def change(scheduler: Scheduler) -> tuple[Transition, str]:
        scheduler.cancel(refused.job_id, "")
        return scheduler.cancel(other.job_id, ""), "cancelled"

    assert machine.changes.apply(change) == "cancelled"
    assert tried == [refused.job_id, other.job_id]
    assert [each.job_id for each, _ in machine.handed_over] == [refused.job_id]
    assert isinstance(machine.handed_over[0][1], Injected)
    assert not machine.scheduler.jobs
    machine.check()


def test_a_close_that_cannot_be_stored_closes_nothing(machine: Machine) -> None:
    def fails() -> None:
        raise Injected

    with pytest.raises(Injected):
        machine.changes.apply(lambda scheduler: (scheduler.close(), None), also=fails)
    job = submitted(machine)
    assert job.status is Status.SCHEDULING, "jobs are still placed"
    machine.changes.apply(lambda scheduler: (scheduler.close(), None))
    assert submitted(machine).status is Status.QUEUED
