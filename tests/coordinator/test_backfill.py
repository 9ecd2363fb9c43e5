"""Jobs that pass others which find no room: only such as delay none of these."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coordinator.cluster.nodes import NodeState
from app.coordinator.jobs.model import Allocation, ResourceRequest
from app.coordinator.jobs.states import RUNNING, Status
from app.coordinator.scheduling.backfill.surplus import Ahead, leaves_room
from app.coordinator.scheduling.placement import MOST_LOOKS
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.scheduling.verdicts import Reason
from tests.coordinator.scheduling_bench import SECOND, Bench, node, record


def test_a_job_for_cores_passes_one_that_waits_for_gpus() -> None:
    bench = Bench(node("n", gpus=4))
    bench.submit(record("holds", gpus=4))
    bench.submit(record("waits", gpus=4, cpus=4))
    assert bench.submit(record("cores", cpus=8)) is Status.TRAINING
    assert bench.submit(record("idle")) is Status.TRAINING
    # Of the eight that are left, the one ahead needs four once it has its GPUs.
    assert bench.submit(record("rest", cpus=4)) is Status.TRAINING
    assert bench.submit(record("more", cpus=1)) is Status.QUEUED
    assert bench.reason("more").reason is Reason.RESERVED
    bench.end("holds")
    assert bench.runs("waits")


def test_many_that_wait_for_gpus_keep_no_more_cores_than_they_could_use_at_once() -> None:
    bench = Bench(node("n", gpus=4))
    bench.submit(record("holds", gpus=4))
    bench.submit_all(record(f"w{n}", gpus=1, cpus=1) for n in range(100))
    assert bench.submit(record("cores", cpus=12)) is Status.TRAINING
    assert bench.submit(record("one-more", cpus=1)) is Status.QUEUED


def test_one_without_a_limit_takes_only_what_nobody_ahead_can_use() -> None:
    bench = Bench(node("n", gpus=4))
    bench.submit(record("holds", gpus=2))
    bench.submit(record("three", gpus=3))
    assert bench.submit(record("two", gpus=2)) is Status.QUEUED
    assert bench.reason("two").reason is Reason.RESERVED
    # Three of four leave one, whatever ends.
    with bench.scheduler.changing():
        bench.scheduler.cancel("two", "")
    assert bench.submit(record("one", gpus=1)) is Status.TRAINING
    bench.end("holds")
    assert bench.runs("three")


def test_one_with_a_limit_passes_if_it_ends_before_its_room_is_needed() -> None:
    bench = Bench(node("n", gpus=4))
    bench.submit(record("holds", gpus=2, limit=100))
    bench.pass_seconds(40)
    bench.submit(record("four", gpus=4, limit=500))
    assert bench.submit(record("long", gpus=2, limit=61)) is Status.QUEUED
    assert bench.reason("long").reason is Reason.RESERVED
    assert bench.reason("long").behind_job_id == "four"
    assert bench.submit(record("short", gpus=2, limit=59)) is Status.TRAINING
    assert bench.reason("four").reason is Reason.RESOURCES
    bench.pass_seconds(59)
    bench.end("short")
    assert not bench.runs("long")
    bench.end("holds")
    assert bench.runs("four")


def test_where_nobody_knows_when_room_will_be_none_of_it_is_lent() -> None:
    bench = Bench(node("n", gpus=4))
    bench.submit(record("endless", gpus=2))
    bench.submit(record("four", gpus=4, limit=500))
    assert bench.submit(record("short", gpus=2, limit=1)) is Status.QUEUED


def test_the_second_in_line_is_not_delayed_either() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("a1", gpus=4, limit=100, on=["a"]))
    bench.submit(record("b1", gpus=2, limit=50, on=["b"]))
    bench.submit(record("first", gpus=4, limit=100, on=["a"]))
    bench.submit(record("second", gpus=4, limit=100, on=["b"]))
    assert bench.submit(record("delays", gpus=2, limit=90)) is Status.QUEUED
    assert bench.submit(record("harmless", gpus=2, limit=49)) is Status.TRAINING


def test_the_next_of_those_that_are_alike_are_not_delayed_either() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("a1", gpus=4, limit=100))
    bench.submit(record("b1", gpus=2, limit=50))
    bench.submit(record("first", gpus=4, limit=100))
    bench.submit(record("second", gpus=4, limit=100))
    assert bench.submit(record("delays", gpus=2, limit=60)) is Status.QUEUED
    bench.end("b1")
    assert bench.runs("first")


def test_a_run_beyond_its_limit_is_taken_to_end_at_once() -> None:
    bench = Bench(node("n", gpus=2))
    bench.submit(record("holds", gpus=1, limit=10))
    bench.pass_seconds(60)
    bench.submit(record("two", gpus=2))
    assert bench.submit(record("one", gpus=1, limit=1)) is Status.QUEUED


def test_very_many_different_requests_do_not_hide_those_of_another_kind() -> None:
    bench = Bench(node("n", gpus=4, cpus=8))
    bench.submit(record("holds", gpus=4))
    bench.submit_all(record(f"w{n}", gpus=4, memory=n + 1) for n in range(4 * MOST_LOOKS))
    assert bench.submit(record("cores", cpus=2)) is Status.TRAINING
    assert bench.submit(record("small", gpus=1)) is Status.QUEUED
    assert bench.reason("small").reason is Reason.BEHIND
    assert bench.reason(f"w{3 * MOST_LOOKS}").reason is Reason.BEHIND
    bench.end("holds")
    assert bench.runs("w0")


class _Trace:
    """Random jobs, all of which run for exactly as long as their limit says, or for ever."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.bench = Bench(node("a", gpus=4, cpus=8), node("b", gpus=2, cpus=4))
        self.ends: dict[str, int] = {}
        #: When the first in line was to start at the latest, since it is the first.
        self.first = ""
        self.promise: int | None = None
        self.broken: list[str] = []

    def play(self, steps: int) -> None:
        for number in range(steps):
            self._end_until(self.bench.now + self.choose.randrange(40) * SECOND)
            self.bench.submit(
                record(
                    f"j{number}",
                    gpus=self.choose.randrange(5),
                    cpus=self.choose.randrange(4),
                    nodes=self.choose.choice([1, 1, 1, 2]),
                    limit=self.choose.choice([0, 10, 30, 100]),
                )
            )
            self._look()

    def _end_until(self, then: int) -> None:
        while due := [(end, name) for name, end in self.ends.items() if end <= then]:
            self.bench.now, name = min(due)
            del self.ends[name]
            self.bench.end(name)
            self._look()
        self.bench.now = then
        if self.choose.random() < 0.3:
            endless = [name for name in self._running() if name not in self.ends]
            if endless:
                self.bench.end(self.choose.choice(endless))
                self._look()

    def _running(self) -> list[str]:
        jobs = self.bench.scheduler.jobs.values()
        return [job.job_id for job in jobs if job.status in RUNNING]

    def _look(self) -> None:
        for name in self._running():
            job = self.bench.scheduler.jobs[name]
            if job.max_runtime and name not in self.ends:
                self.ends[name] = job.run_started_at + job.max_runtime
        possible = [
            job
            for job in self.bench.scheduler.waiting
            if self.bench.cluster.satisfiable(job.resource_request)
        ]
        first = possible[0].job_id if possible else ""
        if first == self.first and self.promise is not None and self.bench.now > self.promise:
            self.broken.append(first)
        if first != self.first:
            self.first, self.promise = first, None
        if first:
            latest = self._latest(possible[0].resource_request)
            if latest is not None:
                self.promise = latest if self.promise is None else min(self.promise, latest)

    def _latest(self, request: ResourceRequest) -> int | None:
        """When the first in line has room, if only what runs now ends at its limit."""
        trial = self.bench.cluster.copy()
        for end, name in sorted((end, name) for name, end in self.ends.items()):
            trial.release(name, self.bench.scheduler.jobs[name].placement)
            if trial.place(request) is not None:
                return end
        return None


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_first_in_line_starts_when_it_was_to_start_at_the_latest(seed: int) -> None:
    trace = _Trace(seed)
    trace.play(40)
    assert not trace.broken


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_nobody_waits_for_ever(seed: int) -> None:
    trace = _Trace(seed)
    trace.play(25)
    bench = trace.bench
    waiting = [
        job.job_id
        for job in bench.scheduler.waiting
        if bench.cluster.satisfiable(job.resource_request)
    ]
    # Each that comes now would pass if it could, and all end some time.
    for number in range(4 * len(waiting) + 8):
        bench.submit(record(f"small{number}", gpus=1, limit=10))
        for name in trace._running():
            bench.end(name)
    assert set(waiting) <= set(bench.started)


SIZES = st.integers(0, 4)
SHARES = st.lists(st.tuples(SIZES, SIZES, st.integers(0, 3)), max_size=4)


@settings(max_examples=150, deadline=None)
@given(running=SHARES, ahead=SHARES, asked=st.tuples(SIZES, SIZES, st.integers(0, 3)))
def test_what_is_left_for_ever_is_used_by_no_set_of_jobs_that_fits_together(
    running: list[tuple[int, int, int]],
    ahead: list[tuple[int, int, int]],
    asked: tuple[int, int, int],
) -> None:
    place = NodeState(node("n", gpus=4, cpus=4))
    held: list[Allocation] = []
    taken, own = 0, asked
    for gpus, cpus, memory in running:
        share = Allocation("n", tuple(range(taken, taken + gpus)), cpus, memory)
        if not _fits([*map(_of, held), (gpus, cpus, memory)]):
            continue
        held.append(share)
        taken += gpus
    if not _fits([*map(_of, held), own]):
        return
    request = ResourceRequest(gpus=own[0], cpus=own[1], memory=own[2])
    others = [
        Ahead(ResourceRequest(gpus=gpus, cpus=cpus, memory=memory), 1)
        for gpus, cpus, memory in ahead
    ]
    if not leaves_room(place, held, request, others):
        return
    jobs = [*map(_of, held), *ahead]
    for chosen in range(1 << len(jobs)):
        some = [job for at, job in enumerate(jobs) if chosen >> at & 1]
        if _fits(some):
            assert _fits([*some, own])


def _of(share: Allocation) -> tuple[int, int, int]:
    return len(share.gpus), share.cpus, share.memory


def _fits(jobs: list[tuple[int, int, int]]) -> bool:
    return (
        sum(gpus for gpus, _, _ in jobs) <= 4
        and sum(cpus for _, cpus, _ in jobs) <= 4
        and sum(not cpus for _, cpus, _ in jobs) <= 4
        and sum(memory for _, _, memory in jobs) <= 64 << 30
    )


@pytest.mark.parametrize("seed", range(4))
def test_what_was_decided_is_decided_again_after_a_restart(seed: int) -> None:
    trace = _Trace(seed)
    trace.play(30)
    bench = trace.bench
    again = bench.new_scheduler(
        Bench(*[each.spec for each in bench.cluster.nodes.values()]).cluster
    )
    assert not again.restore(bench.scheduler.jobs.values())
    with again.changing() as transition:
        again.tick()
    assert not transition.changed, "what waited waits again"
    assert [job.job_id for job in again.waiting] == [job.job_id for job in bench.scheduler.waiting]
    for job in bench.scheduler.waiting:
        assert again.reasons().of(job) == bench.reason(job.job_id)
    running = sorted(trace._running())
    for name in running[:3]:
        bench.end(name)
        with again.changing() as step:
            again.run_ended(name, _ended())
        placed = [job.job_id for job in step.changed if job.status is Status.SCHEDULING]
        assert placed == [each for each in bench.started if each in placed]


def _ended() -> RunEnd:
    return RunEnd(exit_code=1)
