"""Limits of queues and tenants: whom they hold up, and whom they do not."""

from dataclasses import replace

import pytest

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.queues.line import MOST_FAIR, FairPositions
from app.coordinator.scheduling.queues.turns import Turns
from app.coordinator.scheduling.queues.waiting import MOST_NAMES
from app.coordinator.scheduling.verdicts import Reason
from tests.coordinator.scheduling_bench import Bench, node, record
from tests.coordinator.test_queue_rules import rules


def test_however_many_tenants_are_at_their_limit_another_is_not_held_up() -> None:
    bench = Bench(node("n", cpus=1200), rules=rules("", "*:jobs=1"))
    running = []
    for number in range(1100):
        job = record(f"r{number}", cpus=1, tenant=f"t{number}")
        placement = bench.cluster.place(job.resource_request)
        assert placement is not None
        bench.cluster.allocate(job.job_id, placement)
        running.append(replace(job, status=Status.TRAINING, placement=placement))
    bench.cluster.release_all()
    assert not bench.scheduler.restore(running)
    waiting = [record(f"w{number}", cpus=1, tenant=f"t{number}") for number in range(1100)]
    bench.scheduler.restore(replace(job, status=Status.QUEUED) for job in waiting)
    innocent = record("x", cpus=1, tenant="other", created_at=2)
    assert bench.submit(innocent) is Status.TRAINING
    assert bench.reason("w1099").reason is Reason.TENANT_LIMIT
    bench.end("r1099")
    assert bench.runs("w1099")


def test_a_limit_of_a_tenant_holds_up_its_jobs_in_every_queue() -> None:
    bench = Bench(node("n", gpus=8), rules=rules("q:order=age,r:order=age", "a:gpus=4"))
    bench.submit(record("holds", gpus=2, tenant="a", queue="q"))
    assert bench.submit(record("large", gpus=4, tenant="a", queue="q")) is Status.QUEUED
    # It would keep the large one from starting when `holds` ends.
    assert bench.submit(record("small", gpus=1, tenant="a", queue="r")) is Status.QUEUED
    assert bench.submit(record("other", gpus=1, tenant="b", queue="r")) is Status.TRAINING
    told = bench.reason("small")
    assert told.reason is Reason.TENANT_LIMIT
    assert "asks for more than is left" in told.message
    bench.end("holds")
    assert bench.runs("large")


def test_what_no_limit_allows_any_more_holds_up_nobody() -> None:
    bench = Bench(node("n", gpus=8), rules=rules("", "a:gpus=4"))
    bench.scheduler.restore([_queued("large", gpus=8, tenant="a")])
    assert bench.submit(record("small", gpus=1, tenant="a")) is Status.TRAINING
    told = bench.reason("large")
    assert told.reason is Reason.TENANT_LIMIT
    assert told.message == "It can never start: the limit of the tenant is 4 GPUs at once."


def _queued(name: str, *, gpus: int, tenant: str) -> JobRecord:
    return replace(record(name, gpus=gpus, tenant=tenant), status=Status.QUEUED)


@pytest.mark.parametrize("limit", ["gpus=4", "jobs=1"])
def test_what_is_left_of_a_limit_is_kept_for_those_ahead(limit: str) -> None:
    bench = Bench(node("n", gpus=4), node("m", gpus=4), rules=rules(f"default:{limit}"))
    bench.submit(record("holds", gpus=2, on=["n"], queue="r", limit=100))
    assert bench.submit(record("large", gpus=4, on=["n"])) is Status.QUEUED
    # Nobody ahead can use the other node, but `large` needs the limit.
    assert bench.submit(record("endless", gpus=1, on=["m"])) is Status.QUEUED
    assert bench.submit(record("long", gpus=1, on=["m"], limit=101)) is Status.QUEUED
    told = bench.reason("endless")
    assert told.reason is Reason.QUEUE_LIMIT
    assert told.message.endswith("Jobs ahead of it need what is left.")
    assert bench.submit(record("short", gpus=1, on=["m"], limit=99)) is Status.TRAINING
    assert bench.submit(record("free", gpus=1, on=["m"], queue="r")) is Status.TRAINING
    bench.end("short", "holds")
    assert bench.runs("large")


def test_nobody_is_stopped_for_a_job_that_a_limit_then_keeps_waiting() -> None:
    bench = Bench(node("n", gpus=2), node("m", gpus=2), rules=rules("", "a:jobs=1"))
    for name in ("n", "m"):
        bench.submit(record(f"low-{name}", gpus=2, on=[name], priority=1, preemptible=True))
    bench.submit(record("first", gpus=2, on=["n"], tenant="a", priority=9))
    bench.submit(record("second", gpus=2, on=["m"], tenant="a", priority=9))
    assert bench.asked_to_stop == ["low-n"]
    bench.end("low-n")
    assert bench.runs("first")
    assert bench.runs("low-m")


def test_nobody_is_stopped_for_a_job_that_others_who_were_not_looked_at_may_be_ahead_of() -> None:
    bench = Bench(node("n", gpus=2), node("m", gpus=8))
    bench.submit(record("low", gpus=8, on=["m"], priority=1, preemptible=True))
    bench.submit(record("holds", gpus=2, on=["n"], priority=9))
    # More different ones than are looked at.
    bench.submit_all(record(f"w{n}", gpus=1, memory=n + 1, on=["n"], priority=8) for n in range(9))
    bench.submit(record("late", gpus=8, on=["m"], priority=7))
    if "low" in bench.asked_to_stop:
        bench.end("low")
        assert bench.runs("late")


def test_a_walk_does_not_enter_every_queue_that_somebody_made_up() -> None:
    bench = Bench(node("n", gpus=1), rules=rules("*:tenant_jobs=5"))
    bench.submit(record("holds", gpus=1))
    with bench.scheduler.changing():
        for number in range(500):
            bench.scheduler.submit(record(f"w{number}", gpus=1, queue=f"made-up-{number}"))
    candidates = bench.scheduler._table.candidates
    turns = Turns(candidates)
    assert len(turns._entries) == 1
    for _ in range(3):
        assert turns.next() is not None
    assert len(turns._entries) < 10


def test_a_tenant_does_not_wait_in_more_queues_without_a_name_than_are_allowed() -> None:
    bench = Bench(node("n", gpus=1), rules=rules("*:tenant_jobs=5,named:gpus=4"))
    bench.submit(record("holds", gpus=1))
    waiting = bench.scheduler.waiting
    for number in range(MOST_NAMES):
        job = record(f"w{number}", gpus=1, queue=f"made-up-{number}")
        assert waiting.has_room(job)
        bench.submit(job)
    assert not waiting.has_room(record("x", queue="another"))
    assert waiting.has_room(record("x", queue="another", tenant="other"))
    assert waiting.has_room(record("x", queue="made-up-0"))
    assert waiting.has_room(record("x", queue="named"))
    with bench.scheduler.changing():
        bench.scheduler.cancel("w0", "")
    assert waiting.has_room(record("x", queue="another"))


def test_run_times_are_remembered_of_a_bounded_number_of_queues() -> None:
    run_times = RunTimes()
    for number in range(5000):
        run_times.add_seconds(f"q{number}", 60)
    assert run_times.expected(record("x", queue="q4999")) == 60
    assert run_times.expected(record("x", queue="q0")) != 60


def test_positions_behind_the_first_of_a_fair_queue_are_dense() -> None:
    bench = Bench(node("n", gpus=1), rules=rules("default:order=fair"))
    bench.submit(record("holds", gpus=1))
    with bench.scheduler.changing():
        for number in range(2 * MOST_FAIR):
            # The turns of the second half alternate with those of the first.
            tenant = "a" if number < MOST_FAIR else "b"
            bench.scheduler.submit(record(f"w{number:04}", gpus=1, tenant=tenant))
    fair: dict[str, FairPositions] = {}
    told = [bench.scheduler.position(job, fair) for job in bench.scheduler.waiting]
    assert sorted(told) == list(range(1, 2 * MOST_FAIR + 1))


def test_one_that_is_held_up_no_more_starts_before_those_behind_it() -> None:
    """`kept` needs what is left of its tenant's limit until `short` has that of their queue: then
    `held-up` has its turn before `later`, which comes behind it."""
    nodes = node("a", gpus=1, cpus=2), node("b", gpus=2)
    bench = Bench(*nodes, rules=rules("night:jobs=1", "b:jobs=2"))
    bench.submit(record("runs", gpus=1, on=["a"], tenant="b", limit=10))
    bench.submit(record("full", gpus=2, on=["b"], tenant="c", queue="night"))
    bench.submit(record("kept", gpus=1, on=["a"], tenant="b", queue="night", limit=100, priority=9))
    bench.submit(record("short", cpus=2, on=["a"], tenant="c", queue="night", limit=5, priority=8))
    bench.submit(record("held-up", gpus=2, on=["b"], tenant="b", priority=7))
    bench.submit(record("later", gpus=2, on=["b"], tenant="c", limit=5, priority=6))
    bench.end("full")
    assert bench.runs("short")
    assert bench.runs("held-up")
    assert not bench.runs("later")
