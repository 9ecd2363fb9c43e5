"""Who is stopped for a job of higher priority: nobody in vain, nobody twice, as few as can be."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import ResourceRequest
from app.coordinator.jobs.states import RUNNING, Status
from app.coordinator.scheduling.preemption.victims import choose_victims
from app.coordinator.scheduling.verdicts import Reason
from tests.coordinator.scheduling_bench import Bench, node, record


def test_one_large_run_is_stopped_rather_than_several_small_ones() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4), node("c", gpus=4))
    bench.submit_all(
        record(f"a{n}", gpus=1, on=["a"], priority=1, preemptible=True) for n in range(4)
    )
    for name in "bc":
        bench.submit(record(name, gpus=4, on=[name], priority=1, preemptible=True))
    assert bench.submit(record("gang", gpus=4, nodes=2, priority=9)) is Status.QUEUED
    assert sorted(bench.asked_to_stop) == ["b", "c"]
    assert bench.reason("gang").reason is Reason.PREEMPTING
    bench.end("b")
    assert not bench.runs("gang")
    bench.end("c")
    assert bench.runs("gang")
    assert all(bench.runs(f"a{n}") for n in range(4))


def test_no_higher_priority_is_stopped_than_must_be() -> None:
    bench = Bench(node("a", gpus=2), node("b", gpus=2))
    for name in ("a1", "a2"):
        bench.submit(record(name, gpus=1, on=["a"], priority=1, preemptible=True))
    bench.submit(record("b", gpus=2, on=["b"], priority=3, preemptible=True))
    bench.submit(record("urgent", gpus=2, priority=9))
    assert sorted(bench.asked_to_stop) == ["a1", "a2"]


def test_nobody_is_stopped_for_a_gang_of_which_a_part_finds_no_room() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4), node("c", gpus=4))
    for name in "ab":
        bench.submit(record(name, gpus=4, on=[name], priority=1, preemptible=True))
    bench.submit(record("c", gpus=4, on=["c"], priority=1))
    bench.submit(record("gang", gpus=4, nodes=3, priority=9))
    assert not bench.asked_to_stop
    assert bench.reason("gang").reason is Reason.RESOURCES


def test_nobody_is_stopped_for_one_that_a_drained_node_keeps_waiting() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("a", gpus=4, on=["a"], priority=1, preemptible=True))
    bench.drain("b")
    bench.submit(record("gang", gpus=4, nodes=2, priority=9))
    assert not bench.asked_to_stop
    assert bench.reason("gang").reason is Reason.DRAINED


def test_a_run_over_several_nodes_is_stopped_once() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("wide", gpus=4, nodes=2, priority=1, preemptible=True))
    bench.submit(record("gang", gpus=4, nodes=2, priority=9))
    assert bench.asked_to_stop == ["wide"]
    bench.end("wide")
    assert bench.runs("gang")


def test_what_is_being_stopped_for_one_is_not_stopped_for_another_or_given_to_one_behind() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("a", gpus=4, on=["a"], priority=1, preemptible=True))
    bench.submit(record("b", gpus=4, on=["b"], priority=1, preemptible=True))
    bench.submit(record("first", gpus=4, priority=7))
    assert len(bench.asked_to_stop) == 1
    # Another comes first meanwhile: it has the room, and the other one is stopped for the first.
    bench.submit(record("urgent", gpus=4, priority=9))
    assert sorted(bench.asked_to_stop) == ["a", "b"]
    bench.submit(record("small", gpus=1, limit=1, priority=7))
    assert sorted(bench.asked_to_stop) == ["a", "b"]
    bench.end(bench.asked_to_stop[0])
    assert bench.runs("urgent")
    assert not bench.runs("small")
    bench.end(bench.asked_to_stop[1])
    assert bench.runs("first")
    assert len(bench.asked_to_stop) == 2


def test_a_half_emptied_gang_is_kept_from_those_behind_while_the_rest_ends() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    for name in "ab":
        bench.submit(record(name, gpus=4, on=[name], priority=1, preemptible=True))
    bench.submit(record("gang", gpus=4, nodes=2, priority=9))
    bench.end("a")
    assert bench.submit(record("small", gpus=1, limit=1)) is Status.QUEUED
    assert bench.submit(record("endless", gpus=1)) is Status.QUEUED
    assert bench.reason("small").reason is Reason.RESERVED
    bench.end("b")
    assert bench.runs("gang")
    assert sorted(bench.asked_to_stop) == ["a", "b"]


def test_a_restart_in_the_middle_of_a_preemption_stops_nobody_else() -> None:
    bench = Bench(node("a", gpus=4), node("b", gpus=4))
    bench.submit(record("a", gpus=4, on=["a"], priority=1, preemptible=True))
    bench.submit(record("b", gpus=4, on=["b"], priority=1, preemptible=True))
    bench.submit(record("urgent", gpus=4, priority=9))
    again = bench.new_scheduler(Cluster([node("a", gpus=4), node("b", gpus=4)]))
    again.restore(bench.scheduler.jobs.values())
    with again.changing() as transition:
        again.tick()
    assert not transition.changed
    assert again.reasons().of(again.jobs["urgent"]) == bench.reason("urgent")


JOBS = st.lists(
    st.tuples(
        st.integers(1, 4),  # GPUs
        st.sampled_from([("a",), ("b",), ("c",), ("a", "b"), ("b", "c")]),
        st.integers(0, 3),  # priority
    ),
    max_size=7,
)


@settings(max_examples=100, deadline=None)
@given(jobs=JOBS, gpus=st.integers(1, 4), nodes=st.integers(1, 3))
def test_the_victims_suffice_none_is_idle_and_no_higher_priority_is_needed(
    jobs: list[tuple[int, tuple[str, ...], int]], gpus: int, nodes: int
) -> None:
    bench = Bench(*(node(name, gpus=4) for name in "abc"))
    for number, (count, on, priority) in enumerate(jobs):
        bench.submit(
            record(
                f"j{number}",
                gpus=count,
                nodes=len(on),
                on=on,
                priority=priority,
                preemptible=True,
            )
        )
    running = [job for job in bench.scheduler.jobs.values() if job.status in RUNNING]
    request = ResourceRequest(gpus=gpus, nodes=nodes, cpus=0)
    trial = bench.cluster.copy()
    victims = choose_victims(trial, request, running, without=())
    assert {name: state.taken_gpus for name, state in trial.nodes.items()} == {
        name: state.taken_gpus for name, state in bench.cluster.nodes.items()
    }

    def suffices(names: tuple[str, ...]) -> bool:
        without = bench.cluster.copy()
        for name in names:
            without.release(name, bench.scheduler.jobs[name].placement)
        return without.place(request) is not None

    if suffices(()):
        return
    chosen = tuple(job.job_id for job in victims)
    assert suffices(chosen) or not chosen
    assert not any(suffices(some) for some in itertools.combinations(chosen, len(chosen) - 1))
    highest = max((job.priority for job in victims), default=99)
    below = tuple(job.job_id for job in running if job.priority < highest)
    assert not suffices(below), "all of a lower priority would have sufficed"
