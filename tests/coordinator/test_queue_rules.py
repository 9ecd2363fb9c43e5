"""Queues of their own order, limits of queues and tenants, fair shares, and why each job waits."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import ResourceRequest
from app.coordinator.jobs.queue_rules import (
    Limits,
    QueueOrder,
    QueueRules,
    SchedulingRules,
    TenantRules,
)
from app.coordinator.jobs.states import RUNNING, Status
from app.coordinator.scheduling.rehearsal import rehearse
from app.coordinator.scheduling.verdicts import Reason
from app.coordinator.settings.scheduling import parse_queues, parse_tenants
from app.coordinator.submission.outlook import waiting_for
from generated.mindcoordinator.v1.queue_pb2 import WaitReason
from tests.coordinator.scheduling_bench import Bench, node, record


def rules(queues: str = "", tenants: str = "") -> SchedulingRules:
    return SchedulingRules(dict(parse_queues(queues)), dict(parse_tenants(tenants)))


def test_the_reasons_are_those_of_the_contract() -> None:
    assert {f"WAIT_REASON_{reason.name}": reason.value for reason in Reason} == {
        name: number for name, number in WaitReason.items() if number
    }


def test_rules_are_read_from_text() -> None:
    found = rules("night:order=fair:gpus=16:tenant_jobs=4, *:jobs=9", "acme:shares=2:gpus=8")
    assert found.queue("night") == QueueRules(QueueOrder.FAIR, Limits(gpus=16), Limits(jobs=4))
    assert found.queue("other") == QueueRules(limits=Limits(jobs=9))
    assert rules("night:max_runtime=315360000").queue("night").max_runtime == 315_360_000
    assert found.tenant("acme") == TenantRules(Limits(gpus=8), shares=2)
    assert found.tenant("other") == TenantRules()


@pytest.mark.parametrize(
    ("queues", "problem"),
    [
        ("a b", "neither the name"),
        ("a:order=new", "not one of"),
        ("a:gpus=-1", "gpus must be"),
        ("a:gpus=10000000", "gpus must be"),
        ("a:gpus=²", "gpus must be"),
        ("a:max_runtime=315360001", "max_runtime must be"),
        ("a:gpus", "not of the form"),
        ("a:gpus=1:gpus=2", "once"),
        ("a:cores=1", "'cores' is not a key"),
        ("a,a", "twice"),
        (",".join(f"q{n}" for n in range(1001)), "more than 1000"),
    ],
)
def test_wrong_rules_say_what_is_wrong(queues: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_queues(queues)


def test_shares_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        parse_tenants("acme:shares=0")


def test_a_tenants_limit_in_a_queue_holds_up_nobody_else() -> None:
    bench = Bench(node("n", gpus=8), rules=rules("default:tenant_gpus=2"))
    assert bench.submit(record("a1", gpus=2, tenant="a")) is Status.TRAINING
    assert bench.submit(record("a2", gpus=1, tenant="a")) is Status.QUEUED
    assert bench.submit(record("b1", gpus=2, tenant="b")) is Status.TRAINING
    assert bench.submit(record("a3", gpus=1, tenant="a", queue="other")) is Status.TRAINING
    assert bench.submit(record("a4", cpus=1, tenant="a")) is Status.TRAINING
    told = bench.reason("a2")
    assert told.reason is Reason.TENANT_LIMIT
    assert told.message == "The tenant holds in queue default 2 of at most 2 GPUs."
    bench.end("a1")
    assert bench.runs("a2")


def test_a_small_job_does_not_pass_a_large_one_that_waits_for_the_same_limit() -> None:
    bench = Bench(node("n", gpus=8), rules=rules("default:gpus=4"))
    bench.submit(record("holds", gpus=2))
    assert bench.submit(record("large", gpus=4)) is Status.QUEUED
    assert bench.submit(record("small", gpus=1, tenant="other")) is Status.QUEUED
    told = bench.reason("small")
    assert told.reason is Reason.QUEUE_LIMIT
    assert "asks for more than is left" in told.message
    bench.end("holds")
    assert bench.runs("large")


def test_running_jobs_are_limited_by_queue_and_by_tenant() -> None:
    bench = Bench(node("n", cpus=16), rules=rules("q:jobs=2", "a:jobs=3"))
    for name in ("q1", "q2"):
        assert bench.submit(record(name, cpus=1, tenant="a", queue="q")) is Status.TRAINING
    assert bench.submit(record("q3", cpus=1, tenant="a", queue="q")) is Status.QUEUED
    assert bench.submit(record("d1", cpus=1, tenant="a")) is Status.TRAINING
    assert bench.submit(record("d2", cpus=1, tenant="a")) is Status.QUEUED
    assert bench.submit(record("d3", cpus=1, tenant="b")) is Status.TRAINING
    assert bench.reason("q3").reason is Reason.QUEUE_LIMIT
    assert bench.reason("d2").message == "The tenant holds 3 of at most 3 running jobs."
    bench.end("d1")
    assert bench.runs("d2")


def test_more_than_can_be_looked_at_that_are_impossible_hold_up_nobody() -> None:
    bench = Bench(node("n", gpus=2), node("m", gpus=1))
    bench.drain("m")
    with bench.scheduler.changing():
        for number in range(1100):
            bench.scheduler.submit(record(f"i{number}", gpus=2, on=["m"], memory=number + 1))
    bench.submit(record("drained", gpus=1, on=["m"]))
    assert bench.submit(record("possible", gpus=2)) is Status.TRAINING
    assert bench.reason("i1099").reason is Reason.IMPOSSIBLE
    assert bench.reason("drained").reason is Reason.DRAINED
    with bench.scheduler.changing():
        step = bench.scheduler.enable("m")
    bench.follow(step)
    while bench.scheduler.next_tick() == 0:
        with bench.scheduler.changing():
            step = bench.scheduler.tick()
        bench.follow(step)
    assert bench.runs("drained")


def test_a_look_that_was_cut_short_is_not_gone_on_with_while_the_coordinator_leaves() -> None:
    bench = Bench(node("n", gpus=1))
    with bench.scheduler.changing():
        for number in range(1100):
            bench.scheduler.submit(record(f"i{number}", gpus=2, memory=number + 1))
    bench.drain("n")
    assert bench.scheduler.next_tick() == 0
    with bench.scheduler.changing():
        bench.scheduler.close()
    assert bench.scheduler.next_tick() is None


def test_a_job_above_a_limit_could_never_start() -> None:
    found = rules("q:gpus=4:tenant_gpus=2", "none:jobs=0")
    assert "2 GPUs" in found.never(record("j", gpus=3, queue="q"))
    assert "4 GPUs" in found.never(record("j", gpus=4, nodes=2, queue="q"))
    assert found.never(record("j", gpus=2, queue="q")) == ""
    assert "0 jobs" in found.never(record("j", tenant="none"))


def test_a_fair_queue_gives_to_whoever_holds_the_least_for_its_shares() -> None:
    bench = Bench(node("n", gpus=6), rules=rules("default:order=fair", "b:shares=2"))
    bench.submit(record("holds", gpus=6))
    bench.submit_all(record(f"a{n}", gpus=1, tenant="a") for n in range(6))
    bench.submit_all(record(f"b{n}", gpus=1, tenant="b") for n in range(6))
    bench.submit(record("c0", gpus=1, tenant="c", priority=4))
    bench.end("holds")
    assert sorted(bench.started[1:]) == ["a0", "a1", "b0", "b1", "b2", "b3"]


def test_priority_goes_before_shares_and_age_alone_counts_where_that_is_the_order() -> None:
    for order, first in (("fair", "high"), ("priority", "high"), ("age", "old")):
        bench = Bench(node("n", gpus=1), rules=rules(f"default:order={order}"))
        bench.submit(record("holds", gpus=1, tenant="a"))
        bench.submit(record("old", gpus=1, tenant="b"))
        bench.submit(record("high", gpus=1, tenant="a", priority=9))
        bench.end("holds")
        assert bench.started[1:] == [first]


def test_each_reason_is_told_in_a_sentence_that_names_nobody_elses_job() -> None:
    bench = Bench(node("n", gpus=2), node("m", gpus=1))
    bench.submit(record("holds", gpus=2, on=["n"]))
    bench.submit(record("other", gpus=2, on=["n"], tenant="else"))
    bench.submit(record("own", gpus=2, on=["n"]))
    told = bench.reason("other")
    assert told.reason is Reason.RESOURCES
    assert told.message == (
        "Waits for GPUs that other jobs hold: it asks for 2 GPUs on a node among n."
    )
    told = bench.reason("own")
    assert told.reason is Reason.BEHIND
    assert "another tenant" in told.message
    assert told.behind_job_id == ""
    bench.drain("m")
    bench.submit(record("drained", gpus=1, on=["m"]))
    assert bench.reason("drained").reason is Reason.DRAINED
    assert "have what it asks for: m (drained)." in bench.reason("drained").message
    bench.submit(record("later", gpus=2, on=["n"]))
    assert "another tenant" in bench.reason("later").message
    bench.submit(record("impossible", gpus=3, on=["n"]))
    assert bench.reason("impossible").reason is Reason.IMPOSSIBLE


def test_what_waits_for_the_cluster_to_grow_does_not_wait_for_drained_nodes() -> None:
    bench = Bench(node("n", gpus=1), growing=True)
    assert bench.submit(record("large", gpus=2)) is Status.QUEUED
    told = bench.reason("large")
    assert told.reason is Reason.IMPOSSIBLE
    assert told.message == (
        "No node has what it asks for yet: 2 GPUs on a node. The cluster is asked to grow."
    )
    found = rehearse(bench.scheduler, record("checked", gpus=2))
    assert waiting_for(found, bench.cluster) == "Nodes that the cluster does not have yet."
    bench.drain("n")
    bench.submit(record("drained", gpus=1))
    assert bench.reason("drained").reason is Reason.DRAINED


def test_a_node_that_is_lost_is_not_told_as_a_drained_one() -> None:
    bench = Bench(node("n", gpus=1), node("m", gpus=1))
    bench.drain("n")
    bench.cluster.nodes["m"].problem = "It is no longer part of the cluster."
    bench.submit(record("waits", gpus=1))
    told = bench.reason("waits")
    assert told.reason is Reason.DRAINED
    assert told.message == (
        "Only nodes that take no jobs have what it asks for: m (not available), n (drained)."
    )
    found = rehearse(bench.scheduler, record("checked", gpus=1))
    assert waiting_for(found, bench.cluster) == (
        "Nodes that take no jobs: m (not available), n (drained)."
    )


def test_a_queue_without_an_order_of_its_own_does_not_take_that_of_other_queues() -> None:
    found = rules("*:order=fair, night:max_runtime=60", "*:gpus=9")
    bench = Bench(node("n", gpus=2), rules=found)
    bench.submit(record("elsewhere", gpus=1, tenant="a"))
    bench.submit(record("holds", gpus=1, tenant="c", queue="night"))
    bench.submit(record("old", gpus=1, tenant="a", queue="night"))
    bench.submit(record("new", gpus=1, tenant="b", queue="night"))
    bench.end("holds")
    assert bench.started[2:] == ["old"]


def test_what_is_checked_only_is_told_of_a_limit() -> None:
    bench = Bench(node("n", gpus=2), rules=rules(tenants="t:gpus=1"))
    bench.submit(record("holds", gpus=1))
    seen = rehearse(bench.scheduler, record("asks", gpus=1))
    assert not seen.starts
    assert waiting_for(seen, bench.cluster) == "The tenant holds 1 of at most 1 GPUs."


def test_small_jobs_leave_large_gaps_and_gangs_stay_together() -> None:
    cluster = Cluster(
        [node(f"{rack}{n}", gpus=8, rack=rack) for rack in "ab" for n in range(3)],
        topology="rack",
    )
    for number, (on, gpus) in enumerate([("a0", 5), ("b0", 7)]):
        placement = cluster.place(ResourceRequest(gpus=gpus, node_ids=(on,), cpus=1))
        assert placement is not None
        cluster.allocate(f"h{number}", placement)
    one = cluster.place(ResourceRequest(gpus=1, cpus=1))
    two = cluster.place(ResourceRequest(gpus=2, cpus=1))
    assert one is not None
    assert two is not None
    assert (one[0].node_id, two[0].node_id) == ("b0", "a0")
    taken = cluster.place(ResourceRequest(gpus=8, node_ids=("a1",), cpus=1))
    assert taken is not None
    cluster.allocate("a1", taken)
    pair = cluster.place(ResourceRequest(gpus=8, nodes=2, cpus=1))
    assert pair is not None
    assert [share.node_id for share in pair] == ["b1", "b2"]
    # Where no rack has room for all of it, it is put where there is some.
    three = cluster.place(ResourceRequest(gpus=8, nodes=3, cpus=1))
    assert three is not None
    assert sorted(share.node_id for share in three) == ["a2", "b1", "b2"]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_limits_are_never_exceeded_and_all_come_to_an_end(seed: int) -> None:
    choose = random.Random(seed)
    found = rules("q:order=fair:gpus=5:tenant_gpus=3,*:tenant_jobs=2", "b:jobs=3,*:gpus=6:shares=2")
    bench = Bench(node("a", gpus=4, cpus=4), node("b", gpus=4, cpus=4), rules=found)
    names = []
    for number in range(40):
        job = record(
            f"j{number}",
            gpus=choose.randrange(4),
            cpus=choose.randrange(3),
            limit=choose.choice([0, 10, 100]),
            tenant=choose.choice("abc"),
            queue=choose.choice(["q", "default", "r"]),
            priority=choose.randrange(4),
            preemptible=choose.random() < 0.3,
        )
        if found.never(job):
            continue
        names.append(job.job_id)
        bench.submit(job)
        _check(bench, found)
        running = [job.job_id for job in bench.scheduler.jobs.values() if job.status in RUNNING]
        if running and choose.random() < 0.4:
            bench.end(choose.choice(running))
            _check(bench, found)
    while running := [job.job_id for job in bench.scheduler.jobs.values() if job.status in RUNNING]:
        bench.end(choose.choice(running))
        _check(bench, found)
    assert set(bench.ended) == set(names)


def _check(bench: Bench, found: SchedulingRules) -> None:
    holding = bench.scheduler.holding.values()
    for queue in ("q", "default", "r"):
        limits = found.queue(queue)
        of_queue = [job for job in holding if job.queue_name == queue]
        _within(limits.limits, [job.resource_request.gpus for job in of_queue])
        for tenant in "abc":
            own = [job.resource_request.gpus for job in of_queue if job.tenant_id == tenant]
            _within(limits.tenant_limits, own)
    for tenant in "abc":
        own = [job.resource_request.gpus for job in holding if job.tenant_id == tenant]
        _within(found.tenant(tenant).limits, own)
    reasons = bench.scheduler.reasons()
    assert all(reasons.of(job).reason is not None for job in bench.scheduler.waiting)


def _within(limits: Limits, gpus: list[int]) -> None:
    assert limits.gpus is None or sum(gpus) <= limits.gpus
    assert limits.jobs is None or len(gpus) <= limits.jobs
