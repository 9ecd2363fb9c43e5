"""Positions and estimated waits follow the order and the plan by which the scheduler decides."""

import random
from contextlib import ExitStack
from heapq import heappop, heappush
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coordinator.jobs.states import RUNNING
from app.coordinator.scheduling import placement
from app.coordinator.scheduling.backfill import ahead
from app.coordinator.scheduling.queues.line import MOST_FAIR, FairPositions
from tests.coordinator.scheduling_bench import SECOND, Bench, node, record
from tests.coordinator.test_queue_rules import rules


def positions(bench: Bench) -> dict[str, int]:
    fair: dict[str, FairPositions] = {}
    scheduler = bench.scheduler
    return {job.job_id: scheduler.position(job, fair) for job in scheduler.waiting}


def waits(bench: Bench) -> dict[str, int]:
    seen = bench.scheduler.forecast()
    return {job.job_id: bench.scheduler.wait_of(job, seen) for job in bench.scheduler.waiting}


def test_positions_in_a_fair_queue_are_the_turns_as_they_will_come() -> None:
    bench = Bench(node("n", gpus=2), rules=rules("default:order=fair", "b:shares=2"))
    bench.submit(record("holds", gpus=2, tenant="c"))
    bench.submit_all(record(f"a{n}", gpus=1, tenant="a") for n in range(4))
    bench.submit_all(record(f"b{n}", gpus=1, tenant="b") for n in range(4))
    bench.submit(record("first", gpus=1, tenant="c", priority=9))
    told = positions(bench)
    order = sorted(told, key=told.__getitem__)
    assert sorted(told.values()) == list(range(1, 10))
    assert order == ["first", "a0", "b0", "b1", "a1", "b2", "b3", "a2", "a3"]
    bench.end("holds")
    assert bench.started[1:] == order[:2]


def test_behind_the_first_of_a_fair_queue_positions_still_grow() -> None:
    bench = Bench(node("n", gpus=1), rules=rules("default:order=fair"))
    bench.submit(record("holds", gpus=1))
    with bench.scheduler.changing():
        for number in range(MOST_FAIR + 20):
            bench.scheduler.submit(record(f"w{number:04}", gpus=1))
    told = positions(bench)
    assert [told[name] for name in sorted(told)] == list(range(1, MOST_FAIR + 21))


def test_in_a_queue_by_age_the_oldest_comes_first() -> None:
    bench = Bench(node("n", gpus=1), rules=rules("default:order=age"))
    bench.submit(record("holds", gpus=1))
    bench.submit(record("old", gpus=1, priority=1))
    bench.submit(record("young", gpus=1, priority=9))
    assert positions(bench) == {"old": 1, "young": 2}
    assert [job.job_id for job in bench.scheduler.waiting] == ["old", "young"]


def test_an_estimate_knows_who_passes() -> None:
    bench = Bench(node("n", gpus=4))
    bench.submit(record("holds", gpus=2, limit=100))
    bench.submit(record("brief", gpus=2, limit=20))
    bench.submit(record("four", gpus=4, limit=50))
    bench.submit(record("passes", gpus=2, limit=60))
    bench.submit(record("stays", gpus=2, limit=90))
    assert waits(bench) == {"four": 100, "passes": 20, "stays": 150}


def test_an_estimate_knows_limits() -> None:
    bench = Bench(node("n", gpus=8), rules=rules("default:tenant_gpus=2", "b:jobs=1"))
    bench.submit(record("a1", gpus=2, limit=100, tenant="a"))
    bench.submit(record("b1", gpus=1, limit=30, tenant="b"))
    bench.submit(record("a2", gpus=2, limit=10, tenant="a"))
    bench.submit(record("a3", gpus=1, limit=10, tenant="a"))
    bench.submit(record("b2", gpus=1, limit=10, tenant="b"))
    assert waits(bench) == {"a2": 100, "a3": 110, "b2": 30}


def test_one_without_a_limit_is_not_told_that_it_passes() -> None:
    bench = Bench(node("n", gpus=4))
    bench.submit(record("holds", gpus=2, limit=100))
    bench.submit(record("brief", gpus=2, limit=20))
    bench.submit(record("four", gpus=4, limit=50))
    bench.submit(record("endless", gpus=2))
    assert waits(bench)["endless"] >= 100


@pytest.mark.parametrize("queues", ["", "default:order=age", "default:gpus=6"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_on_one_node_each_starts_when_it_was_estimated(queues: str, seed: int) -> None:
    with ExitStack() as stack:
        # All are looked at, and each has a reservation.
        for room, name in (
            (placement, "MOST_LOOKS"),
            (placement, "_MOST_LOOKS_FOR_GPUS"),
            (placement, "_MOST_REFUSED"),
            (ahead, "RESERVED"),
        ):
            stack.enter_context(patch.object(room, name, 100))
        _compare(queues, seed)


def _compare(queues: str, seed: int) -> None:
    choose = random.Random(seed)
    bench = Bench(node("n", gpus=8), rules=rules(queues))
    gpus = [1, 1, 2, 4, 6] if queues.endswith("gpus=6") else [1, 1, 2, 4, 8]
    bench.submit(record("holds", gpus=max(gpus), limit=7))
    for number in range(20):
        job = record(
            f"j{number:02}",
            gpus=choose.choice(gpus),
            # No two runs end in the same second.
            limit=choose.randrange(5, 100_000),
        )
        bench.submit(job)
    estimated = waits(bench)
    starts = _starts(bench)
    off = {name: (wait, starts[name]) for name, wait in estimated.items() if wait != starts[name]}
    assert not off


def _starts(bench: Bench) -> dict[str, int]:
    """Play all to the end; each run takes as long as its limit says."""
    begin, starts = bench.now, dict[str, int]()
    ends: list[tuple[int, str]] = []
    while True:
        for name, job in bench.scheduler.jobs.items():
            if job.status in RUNNING and name not in starts:
                starts[name] = (bench.now - begin) // SECOND
                heappush(ends, (bench.now + job.max_runtime, name))
        if not ends:
            return starts
        bench.now, name = heappop(ends)
        bench.end(name)
