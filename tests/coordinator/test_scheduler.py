"""The scheduler, stepped by hand: no processes, no files, a clock of its own."""

import random
from collections.abc import Callable
from typing import Concatenate, ParamSpec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coordinator.cluster.node_specs import GpuSpec, NodeReport, NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.engines.local.exit_status import interruption_of
from app.coordinator.errors import FailedPrecondition
from app.coordinator.jobs.model import JobRecord, ResourceRequest, StopReason
from app.coordinator.jobs.states import MOVES, TERMINAL, Status
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.planning import PLAYED
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import (
    Abandon,
    Export,
    Instruction,
    Launch,
    Prepare,
    RunEnd,
    Stop,
    Transition,
)
from app.coordinator.scheduling.verdicts import Reason
from generated.mindcoordinator.v1.jobs_pb2 import JobStatus, SubmitJobRequest

SECOND = 1_000_000

P = ParamSpec("P")


def ended(code: int) -> RunEnd:
    """How a run ended, as the local engine reports it."""
    return RunEnd(exit_code=code, interruption=interruption_of(code))


class Bench:
    """A scheduler, and somebody who carries out what it says, at once or when asked to."""

    def __init__(self, *, nodes: int = 2, gpus: int = 4) -> None:
        self.now = 1_000 * SECOND
        self.cluster = Cluster(
            NodeSpec(f"n{n}", f"n{n}", 16, 1 << 40, (GpuSpec("A100", 80 << 30),) * gpus)
            for n in range(nodes)
        )
        self.scheduler = Scheduler(
            cluster=self.cluster, clock=lambda: self.now, run_times=RunTimes()
        )
        self.todo: list[Instruction] = []
        self.ended: dict[str, JobRecord] = {}
        self.launched: list[tuple[str, int]] = []
        self.count = 0

    def job(
        self,
        *,
        gpus: int = 1,
        nodes: int = 1,
        priority: int = 5,
        preemptible: bool = False,
        not_before: int = 0,
        retries: int = 0,
    ) -> str:
        self.count += 1
        self.now += 1
        submission = SubmitJobRequest(name="job")
        submission.scheduling_config.preemptible = preemptible
        submission.training_config.max_retries = retries
        record = JobRecord(
            job_id=f"j{self.count}",
            tenant_id="t",
            user_id="u",
            name="job",
            submission=submission,
            resource_request=ResourceRequest(gpus=gpus, nodes=nodes),
            created_at=self.now,
            updated_at=self.now,
            priority=priority,
            not_before=not_before,
        )
        self.apply(Scheduler.submit, record)
        return record.job_id

    def apply(
        self,
        event: Callable[Concatenate[Scheduler, P], Transition],
        *given: P.args,
        **named: P.kwargs,
    ) -> None:
        with self.scheduler.changing():
            step = event(self.scheduler, *given, **named)
        self.follow(step)

    def follow(self, step: Transition) -> None:
        for job in step.changed:
            if job.status in TERMINAL:
                assert job.job_id not in self.ended, "it ended twice"
                self.ended[job.job_id] = job
        for instruction in step.instructions:
            if isinstance(instruction, Abandon):
                self.todo = [
                    other
                    for other in self.todo
                    if not isinstance(other, Prepare) or other.job.job_id != instruction.job_id
                ]
            else:
                self.todo.append(instruction)
        self.scheduler.validate()

    def carry_out(self, at: int = 0, *, code: int = 0) -> None:
        """The next instruction; a run goes on until `end_run`, or a Stop ends it."""
        instruction = self.todo.pop(at)
        match instruction:
            case Prepare(job):
                self.apply(Scheduler.preparing, job.job_id)
                self.apply(Scheduler.prepared, job.job_id)
            case Launch(job):
                self.launched.append((job.job_id, job.run_count))
            case Stop(job, _):
                now = self.scheduler.jobs.get(job.job_id)
                # A second request to stop the same run finds it gone.
                if (
                    now
                    and now.stop_reason is not StopReason.NONE
                    and now.run_count == job.run_count
                ):
                    self.apply(Scheduler.run_ended, job.job_id, RunEnd(exit_code=0, stopped=True))
            case Export(job):
                self.apply(Scheduler.exported, job.job_id, "scaidrive://t/out")

    def settle(self) -> None:
        while self.todo:
            self.carry_out()

    def end_run(self, job_id: str, *, code: int = 0) -> None:
        self.apply(Scheduler.run_ended, job_id, ended(code))
        self.settle()

    def status(self, job_id: str) -> Status:
        job = self.ended.get(job_id) or self.scheduler.jobs[job_id]
        return job.status


def test_the_states_are_those_of_the_contract() -> None:
    assert {f"JOB_STATUS_{status.name}": int(status) for status in Status} == {
        name: number for name, number in JobStatus.items() if number
    }
    assert set(MOVES) == set(Status)


def test_priority_then_age() -> None:
    bench = Bench(nodes=1, gpus=1)
    first = bench.job()
    bench.settle()
    late, urgent, later = bench.job(), bench.job(priority=9), bench.job()
    bench.settle()
    order = []
    running = first
    for _ in range(3):
        bench.end_run(running)
        (running,) = [j for j in (late, urgent, later) if bench.status(j) is Status.TRAINING]
        order.append(running)
    assert order == [urgent, late, later]


def test_a_large_job_is_not_overtaken_for_ever() -> None:
    bench = Bench(nodes=1, gpus=4)
    running = bench.job(gpus=2)
    bench.settle()
    large, small = bench.job(gpus=4), bench.job(gpus=1)
    bench.settle()
    assert bench.status(small) is Status.QUEUED
    bench.end_run(running)
    assert bench.status(large) is Status.TRAINING
    assert bench.status(small) is Status.QUEUED


def test_only_as_many_as_needed_are_preempted_and_the_lowest_first() -> None:
    bench = Bench(nodes=1, gpus=4)
    low = bench.job(gpus=1, priority=1, preemptible=True)
    mid = bench.job(gpus=2, priority=3, preemptible=True)
    keep = bench.job(gpus=1, priority=1)
    bench.settle()
    high = bench.job(gpus=2, priority=8)
    assert bench.status(mid) is Status.CHECKPOINTING
    # Without the first victim the second alone is enough.
    assert bench.status(low) is Status.TRAINING
    assert bench.status(keep) is Status.TRAINING
    bench.settle()
    assert bench.status(mid) is Status.PREEMPTED
    assert bench.status(high) is Status.TRAINING


def test_nobody_is_preempted_in_vain() -> None:
    bench = Bench(nodes=1, gpus=4)
    low = bench.job(gpus=2, priority=1, preemptible=True)
    bench.job(gpus=2, priority=1)
    bench.settle()
    bench.job(gpus=4, priority=9)
    bench.settle()
    assert bench.status(low) is Status.TRAINING


@pytest.mark.parametrize(
    ("code", "signal_number"),
    [(-9, 9), (-11, 11), (137, 9), (139, 11), (134, 6), (143, 15), (130, 2), (135, 7)],
)
def test_a_run_that_a_signal_ended_is_tried_again_whoever_reports_it(
    code: int, signal_number: int
) -> None:
    bench = Bench()
    job = bench.job(retries=1)
    bench.settle()
    bench.end_run(job, code=code)
    record = bench.scheduler.jobs[job]
    assert (record.status, record.retry_count) == (Status.TRAINING, 1)
    bench.end_run(job, code=code)
    assert bench.status(job) is Status.FAILED
    assert f"signal {signal_number} (" in bench.ended[job].error_message
    if code > 0:
        assert f"status {code}" in bench.ended[job].error_message


@pytest.mark.parametrize("code", [1, 2, 127, 128, 145, 146, 159 + 64, 255])
def test_a_run_that_exits_by_itself_is_not_tried_again(code: int) -> None:
    bench = Bench()
    job = bench.job(retries=1)
    bench.settle()
    bench.end_run(job, code=code)
    assert bench.status(job) is Status.FAILED
    assert "signal" not in bench.ended[job].error_message


def test_waits_come_from_measured_run_times() -> None:
    bench = Bench(nodes=1, gpus=1)
    first = bench.job()
    bench.settle()
    bench.now += 100 * SECOND
    bench.end_run(first)
    second = bench.job()
    bench.settle()
    third, fourth = bench.job(), bench.job()
    bench.now += 40 * SECOND
    assert bench.scheduler.forecast().waits == {third: 60, fourth: 160}
    assert bench.status(second) is Status.TRAINING


def test_a_step_that_is_undone_has_not_happened() -> None:
    bench = Bench(nodes=1, gpus=1)
    before = dict(bench.scheduler.jobs)
    record = JobRecord(
        job_id="x",
        tenant_id="t",
        user_id="",
        name="",
        submission=SubmitJobRequest(),
        resource_request=ResourceRequest(gpus=1),
        created_at=1,
        updated_at=1,
    )

    def submit_and_fail() -> None:
        with bench.scheduler.changing():
            bench.scheduler.submit(record)
            assert bench.cluster.nodes["n0"].taken_gpus == {0}
            bench.scheduler.drain("n0", force=False, reason="r")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        submit_and_fail()
    assert bench.scheduler.jobs == before
    assert bench.cluster.nodes["n0"].taken_gpus == set()
    assert bench.cluster.nodes["n0"].drain is None
    bench.scheduler.validate()


def test_jobs_change_only_within_a_block_and_none_within_another() -> None:
    bench = Bench()
    job = bench.job()
    with pytest.raises(RuntimeError, match="only within a block"):
        bench.scheduler.cancel(job, "")
    with (
        pytest.raises(RuntimeError, match="cannot begin another"),
        bench.scheduler.changing(),
        bench.scheduler.changing(),
    ):
        pass
    assert bench.status(job) is Status.SCHEDULING
    bench.scheduler.validate()


def test_only_transient_failures_are_retried() -> None:
    bench = Bench()
    own, signalled = bench.job(retries=3), bench.job(retries=1)
    bench.settle()
    bench.end_run(own, code=1)
    assert bench.status(own) is Status.FAILED
    bench.end_run(signalled, code=-9)
    assert bench.status(signalled) is Status.TRAINING
    bench.end_run(signalled, code=-9)
    assert bench.status(signalled) is Status.FAILED


def test_illegal_requests_name_the_state() -> None:
    bench = Bench(nodes=1, gpus=1)
    bench.job()
    bench.settle()
    queued = bench.job()
    with pytest.raises(FailedPrecondition, match="QUEUED"):
        bench.scheduler.pause(queued, save_checkpoint=True)
    with pytest.raises(FailedPrecondition, match="QUEUED"):
        bench.scheduler.resume(queued, checkpoint_id="", resume_from="")


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_whatever_happens_nothing_is_oversubscribed_or_lost(seed: int) -> None:
    choose = random.Random(seed)
    bench = Bench(nodes=4, gpus=4)
    scheduler = bench.scheduler
    submitted: list[str] = []
    for _ in range(150):
        bench.now += choose.randrange(2 * SECOND)
        alive = [job_id for job_id in submitted if job_id in scheduler.jobs]
        running = [
            job_id
            for job_id in alive
            if scheduler.jobs[job_id].status in (Status.TRAINING, Status.CHECKPOINTING)
            and (job_id, scheduler.jobs[job_id].run_count) in bench.launched
        ]
        try:
            match choose.randrange(9):
                case 0 | 1 | 2:
                    submitted.append(
                        bench.job(
                            gpus=choose.randrange(5),
                            nodes=choose.choice([1, 1, 1, 2, 4]),
                            priority=choose.randrange(11),
                            preemptible=choose.random() < 0.5,
                            retries=choose.randrange(2),
                            not_before=choose.choice([0, bench.now + 5 * SECOND]),
                        )
                    )
                case 3 | 4 if bench.todo:
                    bench.carry_out(choose.randrange(len(bench.todo)))
                case 5 if running:
                    job_id = choose.choice(running)
                    bench.todo = [
                        other
                        for other in bench.todo
                        if not (isinstance(other, Stop) and other.job.job_id == job_id)
                    ]
                    end = ended(choose.choice([0, 0, 0, 1, -9]))
                    bench.apply(Scheduler.run_ended, job_id, end)
                case 6 if alive:
                    job_id = choose.choice(alive)
                    match choose.randrange(3):
                        case 0:
                            bench.apply(Scheduler.cancel, job_id, "why not")
                        case 1:
                            bench.apply(
                                Scheduler.pause, job_id, save_checkpoint=choose.random() < 0.5
                            )
                        case 2:
                            bench.apply(Scheduler.resume, job_id, checkpoint_id="", resume_from="")
                case 7:
                    node_id = f"n{choose.randrange(4)}"
                    if choose.random() < 0.5:
                        bench.apply(
                            Scheduler.drain, node_id, force=choose.random() < 0.5, reason=""
                        )
                    else:
                        bench.apply(Scheduler.enable, node_id)
                case 8:
                    bench.apply(Scheduler.tick)
        except FailedPrecondition:
            pass
    reasons = scheduler.reasons()
    never = (Reason.NOT_BEFORE, Reason.DRAINED, Reason.IMPOSSIBLE)
    turns = [job.job_id for job in scheduler.waiting if reasons.of(job).reason not in never]
    assert list(scheduler.forecast().waits) == turns[:PLAYED]
    for node_id in bench.cluster.nodes:
        bench.apply(Scheduler.enable, node_id)
    bench.now += 100 * SECOND
    bench.apply(Scheduler.tick)
    for _ in range(10 * len(submitted)):
        bench.settle()
        for job in list(scheduler.jobs.values()):
            if job.status is Status.PAUSED:
                bench.apply(Scheduler.resume, job.job_id, checkpoint_id="", resume_from="")
            elif bench.status(job.job_id) is Status.TRAINING:
                bench.end_run(job.job_id)
        if not scheduler.jobs:
            break
    assert set(bench.ended) == set(submitted)
    assert len(set(bench.launched)) == len(bench.launched)
    assert all(not node.job_ids for node in bench.cluster.nodes.values())


def _scheduler() -> Scheduler:
    cluster = Cluster([NodeSpec("n", "n", 2, 1 << 40, (GpuSpec("A100", 80 << 30),))])
    return Scheduler(cluster=cluster, clock=lambda: SECOND, run_times=RunTimes())


def _submitted(scheduler: Scheduler, job_id: str, resource_request: ResourceRequest) -> Status:
    job = JobRecord(
        job_id=job_id,
        tenant_id="t",
        user_id="u",
        name="n",
        submission=SubmitJobRequest(),
        resource_request=resource_request,
        created_at=len(scheduler.jobs),
        updated_at=1,
    )
    with scheduler.changing():
        scheduler.submit(job)
    return scheduler.jobs[job_id].status


def test_who_asks_for_nothing_keeps_nobody_waiting_who_asks_for_something() -> None:
    scheduler = _scheduler()
    idler = ResourceRequest(cpus=0)
    statuses = [_submitted(scheduler, f"idler-{number}", idler) for number in range(3)]
    assert statuses == [Status.SCHEDULING, Status.SCHEDULING, Status.QUEUED]
    assert _submitted(scheduler, "cores", ResourceRequest(cpus=2)) is Status.SCHEDULING
    assert next(iter(scheduler.waiting)).job_id == "idler-2"
    scheduler.validate()


def test_who_asks_for_something_keeps_nobody_waiting_who_asks_for_nothing() -> None:
    scheduler = _scheduler()
    assert _submitted(scheduler, "first", ResourceRequest(cpus=2)) is Status.SCHEDULING
    assert _submitted(scheduler, "second", ResourceRequest(cpus=1)) is Status.QUEUED
    assert _submitted(scheduler, "idler", ResourceRequest(cpus=0)) is Status.SCHEDULING
    # It has a GPU, but no cores of its own, for which the second waits.
    assert _submitted(scheduler, "gpu", ResourceRequest(cpus=0, gpus=1)) is Status.SCHEDULING
    scheduler.validate()


def test_a_job_waits_for_a_lost_node_and_those_that_have_not_begun_leave_it() -> None:
    bench = Bench(nodes=2, gpus=1)
    first, second = (node.spec for node in bench.cluster.nodes.values())
    running = bench.job()
    bench.settle()
    preparing = bench.job()
    problem = "It was not heard of."
    bench.apply(Scheduler.nodes_changed, [NodeReport(first, problem), NodeReport(second, problem)])
    assert bench.status(preparing) is Status.QUEUED
    # How it ended is the engine's to report.
    assert bench.status(running) is Status.TRAINING
    bench.apply(Scheduler.nodes_changed, [NodeReport(first), NodeReport(second, problem)])
    assert bench.status(preparing) is Status.QUEUED
    bench.apply(Scheduler.nodes_changed, [NodeReport(first), NodeReport(second)])
    bench.settle()
    assert bench.status(preparing) is Status.TRAINING


def test_a_node_that_goes_keeps_its_jobs_and_its_drain() -> None:
    bench = Bench(nodes=1)
    (spec,) = (node.spec for node in bench.cluster.nodes.values())
    job = bench.job()
    bench.settle()
    bench.apply(Scheduler.drain, "n0", force=False, reason="a fan")
    bench.apply(Scheduler.nodes_changed, [])
    assert bench.cluster.nodes["n0"].problem
    bench.end_run(job)
    bench.apply(Scheduler.nodes_changed, [])
    assert not bench.cluster.nodes
    bench.apply(Scheduler.nodes_changed, [NodeReport(spec)])
    assert bench.cluster.nodes["n0"].drain == "a fan"


def test_nodes_that_were_not_stored_are_as_before() -> None:
    bench = Bench(nodes=2)
    before = bench.cluster.reports()

    def change() -> None:
        with bench.scheduler.changing():
            bench.scheduler.nodes_changed([NodeReport(before[0].spec, "It was not heard of.")])
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        change()
    assert bench.cluster.reports() == before
    bench.scheduler.validate()
