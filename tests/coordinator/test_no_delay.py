"""With run times that are known, nobody waits longer than in strict order."""

import random
from dataclasses import replace
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest
from app.coordinator.jobs.states import RUNNING, Status
from app.coordinator.scheduling.backfill.profile import FOREVER, Profile
from app.coordinator.scheduling.backfill.timeline import Timeline
from tests.coordinator.scheduling_bench import GIB, SECOND, Bench, node, record
from tests.coordinator.test_queue_rules import rules

GPUS, CPUS = 8, 12


def jobs_of(choose: random.Random, count: int) -> list[tuple[int, JobRecord]]:
    """Jobs, each with the second in which it comes; all run for as long as their limit says."""
    now, found = 0, []
    for number in range(count):
        now += choose.choice([0, 0, 1, 5, 20])
        gpus = choose.choice([0, 1, 1, 2, 4, 8])
        job = record(
            f"j{number:03}",
            gpus=gpus,
            cpus=choose.randrange(5) if gpus else choose.randrange(1, 9),
            limit=choose.choice([5, 10, 30, 60, 100]),
        )
        found.append((now, job))
    return found


def strict_starts(jobs: list[tuple[int, JobRecord]], cluster: Cluster) -> dict[str, int]:
    """When each starts if nobody is passed."""
    starts: dict[str, int] = {}
    running: list[tuple[int, str, tuple[Allocation, ...]]] = []
    now = 0
    for comes, job in jobs:
        now = max(now, comes)
        while True:
            while running and running[0][0] <= now:
                _, name, placement = heappop(running)
                cluster.release(name, placement)
            found = cluster.place(job.resource_request)
            if found is not None:
                break
            now = running[0][0]
        cluster.allocate(job.job_id, found)
        heappush(running, (now + job.max_runtime // SECOND, job.job_id, found))
        starts[job.job_id] = now
    return starts


def starts_of(jobs: list[tuple[int, JobRecord]], bench: Bench) -> dict[str, int]:
    """When each starts as the scheduler has it."""
    begin = bench.now
    starts: dict[str, int] = {}
    ends: list[tuple[int, str]] = []
    arrivals = jobs[:]
    while arrivals or ends:
        now = min([*(comes for comes, _ in arrivals[:1]), *(end for end, _ in ends[:1])])
        bench.now = begin + now * SECOND
        while ends and ends[0][0] <= now:
            bench.end(heappop(ends)[1])
            bench.now = begin + now * SECOND
        while arrivals and arrivals[0][0] <= now:
            bench.submit(arrivals.pop(0)[1])
            bench.now = begin + now * SECOND
        for name, job in bench.scheduler.jobs.items():
            if job.status in RUNNING and name not in starts:
                starts[name] = now
                heappush(ends, (now + job.max_runtime // SECOND, name))
    return starts


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_on_one_node_nobody_starts_later_than_in_strict_order(seed: int) -> None:
    jobs = jobs_of(random.Random(seed), 40)
    spec = node("n", gpus=GPUS, cpus=CPUS)
    strict = strict_starts(jobs, Cluster([spec]))
    starts = starts_of(jobs, Bench(spec))
    later = {name: (strict[name], starts[name]) for name in strict if starts[name] > strict[name]}
    assert not later


@pytest.mark.parametrize("queues", ["", "default:order=fair", "default:order=age"])
def test_those_far_behind_in_line_are_not_passed_by_what_would_delay_them(queues: str) -> None:
    bench = Bench(node("n", gpus=4), rules=rules(queues))
    bench.submit(record("holds", gpus=2, limit=100))
    # Each has another request; all of them need what is free now as soon as `holds` ends.
    bench.submit_all(record(f"w{n:02}", gpus=4, limit=1000 + n) for n in range(30))
    assert bench.submit(record("long", gpus=2, limit=101)) is Status.QUEUED


def test_the_next_after_those_that_have_a_reservation_are_not_delayed_either() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("a1", gpus=4, limit=5000, on=["a"]))
    bench.submit(record("b1", gpus=2, limit=50, on=["b"]))
    bench.submit_all(record(f"w{n:02}", gpus=4, limit=10, on=["a"]) for n in range(40))
    bench.submit(record("last", gpus=4, limit=10, on=["b"]))
    assert bench.submit(record("delays", gpus=2, limit=51, on=["b"])) is Status.QUEUED
    bench.end("b1")
    assert bench.runs("last")


def test_in_a_fair_queue_the_next_of_a_tenant_that_would_hold_more_are_not_ahead() -> None:
    bench = Bench(node("n", gpus=4), rules=rules("default:order=fair"))
    bench.submit(record("holds", gpus=2, limit=100, tenant="x"))
    bench.submit_all(record(f"a{n}", gpus=4, limit=100, tenant="a") for n in range(20))
    assert bench.submit(record("b0", gpus=2, limit=101, tenant="b")) is Status.QUEUED
    assert bench.submit(record("c0", gpus=2, limit=99, tenant="c")) is Status.TRAINING


SIZES = st.integers(0, 3)
SPANS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 12), st.integers(1, 3), SIZES), max_size=6
)


@settings(max_examples=200, deadline=None)
@given(spans=SPANS, gpus=st.integers(1, 4), cpus=SIZES, length=st.integers(1, 15))
def test_a_window_is_the_first_in_which_there_is_enough_at_every_moment(
    spans: list[tuple[int, int, int, int]], gpus: int, cpus: int, length: int
) -> None:
    profile = Profile(NodeSpec("n", "n", 4, GIB, (GpuSpec("A", 1),) * 4), [])
    held: list[tuple[int, int, int, int]] = []
    for start, lasts, taken, cores in spans:
        profile.take((cores, 0, int(not cores), taken), start, start + lasts)
        held.append((start, start + lasts, taken, cores))

    def fits(begin: int) -> bool:
        return all(
            sum(span[2] for span in held if span[0] <= at < span[1]) + gpus <= 4
            and (not cpus or sum(span[3] for span in held if span[0] <= at < span[1]) + cpus <= 4)
            and (cpus or sum(not span[3] for span in held if span[0] <= at < span[1]) < 4)
            for at in range(begin, begin + length)
        )

    request = ResourceRequest(gpus=gpus, cpus=cpus)
    window = profile.window(request, length, start=0)
    first = next(begin for begin in range(100) if fits(begin))
    assert window is not None
    assert window.first == first
    if window.last < FOREVER:
        assert all(fits(begin) for begin in range(first, window.last + 1))
        assert not fits(window.last + 1)


@settings(max_examples=100, deadline=None)
@given(
    ends=st.lists(
        st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), max_size=2),
        min_size=3,
        max_size=4,
    ),
    later=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5), st.integers(1, 2)), max_size=3),
    nodes=st.integers(1, 3),
    gpus=st.integers(1, 4),
    length=st.integers(1, 6),
)
def test_a_gang_is_given_the_first_moment_at_which_enough_nodes_have_room_at_once(
    ends: list[list[tuple[int, int]]],
    later: list[tuple[int, int, int]],
    nodes: int,
    gpus: int,
    length: int,
) -> None:
    cluster = Cluster([node(f"n{n}", gpus=8) for n in range(len(ends))])
    running: dict[str, JobRecord] = {}
    until: dict[str, int] = {}
    spans: list[tuple[int, int, int, int]] = []
    for number, each in enumerate(ends):
        for end, count in each:
            name = f"h{len(running)}"
            found = cluster.place(ResourceRequest(gpus=count, node_ids=(f"n{number}",)))
            assert found is not None
            cluster.allocate(name, found)
            running[name] = _held(name, found)
            until[name] = end
            spans.append((number, 0, end, count))
    timeline = Timeline(cluster, running, lambda job: until[job.job_id])
    for start, lasts, count in later:
        request = ResourceRequest(gpus=count)
        found_later = timeline.earliest(request, set(cluster.nodes), lasts, start=start)
        assert found_later is not None
        timeline.reserve(found_later, lasts)
        at = found_later.start
        spans += [(int(name[1:]), at, at + lasts, count) for name in found_later.shares]

    def enough(begin: int) -> bool:
        return nodes <= sum(
            all(
                sum(s[3] for s in spans if s[0] == number and s[1] <= at < s[2]) + gpus <= 8
                for at in range(begin, begin + length)
            )
            for number in range(len(ends))
        )

    request = ResourceRequest(nodes=nodes, gpus=gpus)
    found_at = timeline.earliest(request, set(cluster.nodes), length)
    assert found_at is not None
    assert found_at.start == next(begin for begin in range(100) if enough(begin))
    assert len(found_at.shares) == nodes


def _held(name: str, placement: tuple[Allocation, ...]) -> JobRecord:
    return replace(record(name), placement=placement)
