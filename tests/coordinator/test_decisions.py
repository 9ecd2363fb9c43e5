"""What of the scheduler's transitions is a decision of the coordinator's own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog

from app.coordinator.execution.decisions import decisions_in, recovered
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import RunEnd, Transition
from app.telemetry.audit import Action
from tests.coordinator.test_scheduler import SECOND, Bench


class Recorder(Bench):
    """Notes the decisions of every transition."""

    def __init__(self, **options: Any) -> None:
        self.decisions: list[tuple[Action, str, str | None]] = []
        super().__init__(**options)

    def follow(self, step: Transition) -> None:
        self.decisions += [
            (each.action, each.job.job_id, each.during) for each in decisions_in(step)
        ]
        super().follow(step)


@pytest.fixture
def bench() -> Recorder:
    return Recorder(nodes=1)


def test_a_job_that_is_done_needs_none(bench: Recorder) -> None:
    job = bench.job()
    bench.settle()
    bench.end_run(job)
    assert bench.status(job) is Status.COMPLETED
    assert bench.decisions == []


def test_what_callers_ask_for_is_none(bench: Recorder) -> None:
    one, other = bench.job(), bench.job()
    bench.settle()
    bench.apply(Scheduler.cancel, one, "enough")
    bench.apply(Scheduler.pause, other, save_checkpoint=True)
    bench.settle()
    assert (bench.status(one), bench.status(other)) == (Status.CANCELLED, Status.PAUSED)
    bench.apply(Scheduler.resume, other, checkpoint_id="", resume_from="")
    assert bench.decisions == []


def test_a_preemption_is_one(bench: Recorder) -> None:
    low = bench.job(gpus=4, priority=1, preemptible=True)
    bench.settle()
    bench.job(gpus=4, priority=9)
    bench.settle()
    assert bench.status(low) is Status.PREEMPTED
    assert bench.decisions == [(Action.JOB_PREEMPT, low, None)]


def test_a_node_that_is_drained_by_force_evicts_and_restarts(bench: Recorder) -> None:
    job = bench.job(retries=1)
    bench.settle()
    bench.apply(Scheduler.drain, "n0", force=True, reason="a fan")
    bench.settle()
    assert bench.decisions == [(Action.JOB_EVICT, job, None), (Action.JOB_RESTART, job, None)]


def test_a_job_that_had_not_begun_goes_back_to_the_queue(bench: Recorder) -> None:
    job = bench.job()
    bench.apply(Scheduler.drain, "n0", force=False, reason="")
    assert bench.decisions == [(Action.JOB_REQUEUE, job, None)]


@pytest.mark.parametrize(
    ("end", "action"),
    [
        (RunEnd(exit_code=1, last_words="a secret"), Action.JOB_FAIL),
        (RunEnd(exit_code=-9, interruption="a signal"), Action.JOB_RESTART),
        (RunEnd(exit_code=None, failure="the runner is gone", transient=True), Action.JOB_RESTART),
    ],
)
def test_a_run_that_breaks_fails_or_is_restarted(
    bench: Recorder, end: RunEnd, action: Action
) -> None:
    job = bench.job(retries=1)
    bench.settle()
    bench.apply(Scheduler.run_ended, job, end)
    assert [each[:2] for each in bench.decisions] == [(action, job)]


@pytest.mark.parametrize(
    ("fail", "during"),
    [
        (lambda s, job: s.preparation_failed(job, "no data"), "PREPARING"),
        (lambda s, job: s.broken_off(job, "a defect"), "PREPARING"),
    ],
)
def test_a_failure_says_what_was_being_done(
    bench: Recorder, fail: Callable[..., Transition], during: str
) -> None:
    job = bench.job()
    bench.apply(Scheduler.preparing, job)
    bench.apply(fail, job)
    assert bench.decisions == [(Action.JOB_FAIL, job, during)]


def test_a_limit_of_time_and_the_end_of_memory_are_decisions(bench: Recorder) -> None:
    one, other = bench.job(), bench.job()
    bench.settle()
    bench.apply(Scheduler.short_of_memory, one, "short")
    bench.now += 10 * SECOND
    bench.settle()
    assert bench.decisions[0] == (Action.JOB_END_FOR_MEMORY, one, None)
    assert (Action.JOB_FAIL, one, "TRAINING") in bench.decisions
    assert other not in {job for _, job, _ in bench.decisions}


def test_the_coordinators_end_sends_runs_back_to_the_queue_once(bench: Recorder) -> None:
    running = bench.job(gpus=4)
    bench.settle()
    bench.apply(Scheduler.close)
    bench.settle()
    assert bench.decisions == [(Action.JOB_REQUEUE, running, None)]


def test_what_is_written_names_the_job_and_no_text_of_it(bench: Recorder) -> None:
    job = bench.job()
    bench.settle()
    with bench.scheduler.changing():
        end = RunEnd(exit_code=3, last_words="password=hunter22")
        step = bench.scheduler.run_ended(job, end)
    with structlog.testing.capture_logs() as events:
        for decision in decisions_in(step):
            decision.write()
        recovered(replace(step.changed[-1], status=Status.TRAINING)).write()
    failed, found = events
    assert failed == {
        "event": "audit",
        "log_level": "info",
        "action": "job.fail",
        "outcome": "ok",
        "actor": "coordinator",
        "tenant_id": None,
        "user_id": None,
        "credential_id": None,
        "target_type": "job",
        "target_id": job,
        "target_tenant_id": "t",
        "during": "TRAINING",
        "exit_code": 3,
        "retry_count": None,
    }
    assert (found["action"], found["during"]) == ("job.recover", "TRAINING")
