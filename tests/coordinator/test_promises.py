"""Nobody is stopped in vain: what is being made room for starts there, whatever ends first."""

import itertools
from dataclasses import replace

import pytest

from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.queue_rules import (
    Limits,
    QueueOrder,
    QueueRules,
    SchedulingRules,
    TenantRules,
)
from app.coordinator.jobs.rows import record_of, values_by_column
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.scheduling.verdicts import Reason
from tests.coordinator.scheduling_bench import GIB, Bench, node, record


def promised(bench: Bench, name: str) -> list[tuple[str, tuple[int, ...]]]:
    """The nodes and GPUs that a job is promised."""
    promise = bench.scheduler.jobs[name].promise
    return [(share.node_id, share.gpus) for share in promise.shares] if promise else []


def two_overlapping_stops() -> Bench:
    """`first` needs four GPUs of any node, and `second` cores of `b`, beside which GPUs are left:
    what is stopped for the one would be enough for the other, too."""
    bench = Bench(node("a", gpus=4, cpus=4), node("b", gpus=4, cpus=4))
    bench.submit(record("low-a", gpus=4, cpus=1, on=["a"], priority=1, preemptible=True))
    bench.submit(record("low-b", gpus=4, cpus=4, on=["b"], priority=2, preemptible=True))
    bench.submit(record("first", gpus=4, cpus=1, priority=9))
    bench.submit(record("second", cpus=3, on=["b"], priority=8))
    return bench


@pytest.mark.parametrize("order", list(itertools.permutations(["low-a", "low-b"])))
def test_each_starts_on_what_was_stopped_for_it_whichever_run_ends_first(
    order: tuple[str, ...],
) -> None:
    bench = two_overlapping_stops()
    assert sorted(bench.asked_to_stop) == ["low-a", "low-b"]
    bench.end(*order)
    starts = {job.job_id: job.node_ids for job in bench.scheduler.holding.values()}
    assert starts == {"first": ("a",), "second": ("b",)}


def test_what_becomes_free_where_a_place_is_promised_is_given_to_nobody_else() -> None:
    bench = Bench(node("a", gpus=4))
    bench.submit(record("one", gpus=2, priority=1, preemptible=True))
    bench.submit(record("two", gpus=2, priority=1, preemptible=True))
    bench.submit(record("urgent", gpus=4, priority=6))
    bench.end("one")
    for name, limit in (("short", 1), ("endless", 0)):
        assert bench.submit(record(name, gpus=1, limit=limit, priority=6)) is Status.QUEUED
        told = bench.reason(name)
        assert told.reason is Reason.RESERVED
        assert "promised to job urgent" in told.message
        assert told.behind_job_id == "urgent"
    assert bench.reason("urgent").reason is Reason.PREEMPTING
    bench.end("two")
    assert bench.runs("urgent")


def test_one_that_a_limit_kept_waiting_does_not_take_a_promised_place() -> None:
    """Though it comes first, and the end of the victim is what its limit waits for."""
    rules = SchedulingRules(tenants={"a": TenantRules(Limits(jobs=1))})
    bench = Bench(node("n", gpus=4, cpus=4), rules=rules)
    bench.submit(record("low", gpus=2, priority=1, preemptible=True, tenant="a"))
    bench.submit(record("kept", gpus=4, priority=9, tenant="a"))
    bench.submit(record("wide", gpus=2, cpus=2, priority=1, tenant="b"))
    bench.submit(record("urgent", gpus=2, cpus=2, priority=5, tenant="b"))
    assert bench.asked_to_stop == ["low"]
    bench.end("low")
    assert bench.runs("urgent")


def test_a_newer_job_that_comes_first_has_the_place_and_nobody_more_is_stopped() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("low-a", gpus=4, on=["a"], priority=1, preemptible=True))
    bench.submit(record("low-b", gpus=4, on=["b"], priority=1, preemptible=True))
    bench.submit(record("one", gpus=2, on=["a"], priority=5))
    bench.submit(record("other", gpus=2, on=["b"], priority=5))
    assert (promised(bench, "one"), promised(bench, "other")) == (
        [("a", (0, 1))],
        [("b", (0, 1))],
    )
    bench.submit(record("newer", gpus=4, on=["a"], priority=9))
    assert promised(bench, "newer") == [("a", (0, 1, 2, 3))]
    assert not promised(bench, "one")
    assert bench.reason("one").reason is Reason.BEHIND
    bench.end("low-a", "low-b")
    assert bench.runs("newer")
    assert bench.runs("other")
    assert len(bench.asked_to_stop) == 2


def test_one_that_was_there_before_does_not_overtake_when_it_comes_back() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("paused", gpus=4, on=["a"], priority=9))
    with bench.scheduler.changing():
        step = bench.scheduler.pause("paused", save_checkpoint=True)
    bench.follow(step)
    bench.end("paused")
    bench.submit(record("low", gpus=4, on=["a"], priority=1, preemptible=True))
    bench.submit(record("urgent", gpus=4, on=["a"], priority=5))
    with bench.scheduler.changing():
        step = bench.scheduler.resume("paused", checkpoint_id="", resume_from="")
    bench.follow(step)
    bench.end("low")
    assert bench.runs("urgent")


def test_a_job_with_a_promise_starts_elsewhere_if_other_runs_end_and_its_place_goes_on() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("low", gpus=4, on=["a"], priority=1, preemptible=True))
    bench.submit(record("other", gpus=4, on=["b"], priority=9))
    bench.submit(record("urgent", gpus=4, priority=5))
    bench.submit(record("next", gpus=4, priority=4))
    bench.end("other")
    assert bench.runs("urgent")
    bench.end("low")
    assert bench.runs("next")
    assert bench.asked_to_stop == ["low"]


def test_a_promise_is_lost_with_its_node_and_made_again_elsewhere() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("low-a", gpus=4, on=["a"], priority=1, preemptible=True))
    bench.submit(record("low-b", gpus=4, on=["b"], priority=2, preemptible=True))
    bench.submit(record("urgent", gpus=4, priority=5))
    assert promised(bench, "urgent") == [("a", (0, 1, 2, 3))]
    bench.drain("a")
    assert promised(bench, "urgent") == [("b", (0, 1, 2, 3))]
    bench.end("low-a", "low-b")
    assert bench.scheduler.jobs["urgent"].node_ids == ("b",)


def test_a_promise_ends_with_its_job_and_the_place_goes_to_the_next() -> None:
    bench = Bench(node("a", gpus=4))
    bench.submit(record("low", gpus=4, priority=1, preemptible=True))
    bench.submit(record("urgent", gpus=4, priority=5))
    bench.submit(record("next", gpus=1, priority=4))
    with bench.scheduler.changing():
        step = bench.scheduler.cancel("urgent", "")
    bench.follow(step)
    bench.end("low")
    assert bench.runs("next")


def test_what_is_promised_counts_towards_limits_and_shares() -> None:
    rules = SchedulingRules(queues={"default": QueueRules(tenant_limits=Limits(gpus=4))})
    bench = Bench(node("a", gpus=4), node("b", gpus=4), rules=rules)
    bench.submit(record("low", gpus=4, on=["a"], priority=1, preemptible=True, tenant="x"))
    bench.submit(record("urgent", gpus=4, on=["a"], priority=5))
    assert bench.submit(record("more", gpus=1, on=["b"], priority=5)) is Status.QUEUED
    told = bench.reason("more")
    assert told.reason is Reason.TENANT_LIMIT
    assert "holds in queue default 4 of at most 4 GPUs" in told.message


def test_a_queue_by_age_stops_nobody_who_comes_before_it() -> None:
    """Its jobs count as of priority 5, whatever they are submitted with."""
    rules = SchedulingRules(queues={"night": QueueRules(QueueOrder.AGE)})
    bench = Bench(node("a", gpus=4), rules=rules)
    bench.submit(record("seven", gpus=4, priority=7, preemptible=True))
    bench.submit(record("nine", gpus=4, priority=9, queue="night"))
    assert not bench.asked_to_stop
    bench.end("seven")
    bench.submit(record("six", gpus=4, priority=6))
    assert not bench.asked_to_stop
    bench.end("nine")
    bench.submit(record("low", gpus=4, on=["a"], priority=1, preemptible=True, queue="night"))
    bench.end("six")
    bench.submit(record("three", gpus=4, priority=3))
    assert not bench.asked_to_stop


def test_a_restart_in_the_middle_keeps_what_was_promised() -> None:
    bench = two_overlapping_stops()
    stored = [record_of(values_by_column(job)) for job in bench.scheduler.jobs.values()]
    assert {job.job_id: job.promise for job in stored} == {
        name: job.promise for name, job in bench.scheduler.jobs.items()
    }
    bench.cluster = Cluster([node("a", gpus=4, cpus=4), node("b", gpus=4, cpus=4)])
    bench.scheduler = bench.new_scheduler(bench.cluster)
    bench.scheduler.restore(stored)
    bench.end("low-b")
    assert bench.runs("second")
    assert not bench.runs("first")
    bench.end("low-a")
    assert bench.runs("first")


def test_a_row_without_a_promise_is_that_of_an_earlier_coordinator() -> None:
    row = values_by_column(record("old"))
    assert "promise" not in row["state"]
    assert record_of(row).promise is None


def test_nobody_is_stopped_where_one_that_comes_back_ahead_may_start() -> None:
    """It is not known yet where that will be."""
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    evicted = record("evicted", gpus=4, priority=9)
    evicted.submission.training_config.max_retries = 1
    bench.submit(evicted)
    bench.submit(record("low", gpus=4, priority=1, preemptible=True))
    with bench.scheduler.changing():
        step = bench.scheduler.drain("a", force=True, reason="")
    bench.follow(step)
    with bench.scheduler.changing():
        step = bench.scheduler.enable("a")
    bench.follow(step)
    bench.submit(record("urgent", gpus=4, priority=5))
    assert bench.asked_to_stop == ["evicted"]
    bench.end("evicted")
    assert bench.runs("evicted")
    assert bench.asked_to_stop == ["evicted", "low"]
    bench.end("low")
    assert bench.runs("urgent")


def test_a_late_start_is_not_left_to_the_next_event() -> None:
    """`big` waits for the limit of its tenant until `small` has started, then for that of its queue
    as `limited` does: it holds up the tenant's jobs of other queues no more."""
    rules = SchedulingRules(
        queues={"q": QueueRules(limits=Limits(jobs=1))},
        tenants={"a": TenantRules(Limits(jobs=1)), "b": TenantRules(Limits(gpus=4))},
    )
    bench = Bench(node("a", gpus=4), rules=rules)
    bench.submit(record("runs", gpus=1, tenant="a"))
    bench.submit(record("full", gpus=2, tenant="c", queue="q"))
    bench.submit(record("limited", gpus=1, tenant="a", queue="q", priority=8))
    bench.submit(record("small", gpus=1, tenant="b", queue="q", priority=7))
    bench.submit(record("big", gpus=4, tenant="b", queue="q", priority=6))
    assert bench.submit(record("other", gpus=2, tenant="b", priority=5)) is Status.QUEUED
    bench.end("full")
    assert bench.runs("small")
    assert bench.runs("other")


def test_a_start_behind_those_who_were_refused_a_promised_place_is_not_left_for_later() -> None:
    """So many are looked at for whom there is room: there is none for them once `urgent` has it."""
    bench = Bench(node("a", gpus=4, cpus=4), node("b", gpus=4, cpus=4))
    sizes = {"p1": (2, 0), "p2": (3, 0), "p3": (2, 1), "p4": (3, 1)}
    for name, (gpus, cpus) in sizes.items():
        bench.submit(record(name, gpus=gpus, cpus=cpus, on=["a"], priority=9))
        with bench.scheduler.changing():
            step = bench.scheduler.pause(name, save_checkpoint=True)
        bench.follow(step)
        bench.end(name)
    bench.submit(record("low", gpus=0, cpus=4, nodes=2, priority=1, preemptible=True))
    bench.submit(record("urgent", gpus=4, cpus=4, on=["a"], priority=5))
    for name in sizes:
        with bench.scheduler.changing():
            step = bench.scheduler.resume(name, checkpoint_id="", resume_from="")
        bench.follow(step)
    bench.submit(record("small", cpus=4, on=["b"], priority=0))
    with bench.scheduler.changing():
        step = bench.scheduler.run_ended("low", RunEnd(exit_code=0, stopped=True))
    assert step.newest()["urgent"].status is Status.SCHEDULING
    assert step.newest()["small"].status is Status.SCHEDULING


def test_gpus_of_a_kind_that_somebody_ahead_needs_are_left_to_it() -> None:
    """Of those that will do, the ones with the least memory are taken otherwise."""
    small, large = GpuSpec("A100", 40 * GIB), GpuSpec("H100", 80 * GIB)
    bench = Bench(NodeSpec("n", "n", 8, 64 * GIB, (small, small, large)), node("m", cpus=8))
    bench.submit(record("full", cpus=8, on=["m"]))
    wide = record("wide", gpus=2, cpus=1, nodes=1)
    wide = replace(wide, resource_request=replace(wide.resource_request, gpu_type="A100"))
    bench.submit(record("one", gpus=1, cpus=1))
    assert bench.submit(wide) is Status.QUEUED
    bench.submit(record("other", gpus=1, cpus=1))
    (share,) = bench.scheduler.jobs["other"].placement
    assert share.gpus == (2,)
    bench.end("one")
    assert bench.runs("wide")
