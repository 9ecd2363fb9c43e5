"""The queue: its order, its pages, and what a look or a change costs with very many in it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coordinator.cluster.gpus import GpuMeter
from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import Cluster, NodeState
from app.coordinator.errors import InvalidArgument
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest
from app.coordinator.jobs.states import WAITING, Status
from app.coordinator.scheduling.backfill.surplus import Ahead, leaves_room
from app.coordinator.scheduling.cluster_view import ClusterView
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.planning import PLAYED
from app.coordinator.scheduling.rehearsal import rehearse
from app.coordinator.scheduling.scheduler import Scheduler
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest
from generated.mindcoordinator.v1.queue_pb2 import QueuedJob

SECOND = 1_000_000
NOW = 1_000 * SECOND


class CountedRunTimes(RunTimes):
    """Counts how often a run time is asked for: once for each job that is played."""

    played = 0

    def expected(self, job: JobRecord) -> float:
        self.played += 1
        return super().expected(job)


def record(
    name: str,
    request: ResourceRequest | None = None,
    *,
    tenant: str = "t",
    queue: str = "default",
    priority: int = 5,
    not_before: int = 0,
) -> JobRecord:
    return JobRecord(
        job_id=name,
        tenant_id=tenant,
        user_id="u",
        name=name,
        submission=SubmitJobRequest(),
        resource_request=request or ResourceRequest(),
        created_at=1,
        updated_at=1,
        priority=priority,
        queue_name=queue,
        not_before=not_before,
    )


class Bench:
    def __init__(self, *, nodes: int = 1, cpus: int = 1) -> None:
        specs = [
            NodeSpec(f"n{n}", f"n{n}", cpus, 1 << 40, (GpuSpec("A100", 80 << 30),) * (n % 3))
            for n in range(nodes)
        ]
        self.cluster = Cluster(specs)
        self.run_times = CountedRunTimes()
        self.scheduler = Scheduler(
            cluster=self.cluster, clock=lambda: NOW, run_times=self.run_times
        )
        self.view = ClusterView(
            self.scheduler, gpus=GpuMeter(()), clock=lambda: NOW, commits=lambda: 0
        )

    def submit(self, *jobs: JobRecord) -> None:
        for job in jobs:
            with self.scheduler.changing():
                self.scheduler.submit(job)

    def fill(self, count: int, request: Callable[[int], ResourceRequest] | None = None) -> None:
        """Take up jobs as they are stored: all wait, since the first holds the node."""
        asked = request or (lambda _: ResourceRequest())
        jobs = [replace(record(f"j{n}", asked(n)), created_at=n + 1) for n in range(count)]
        self.scheduler.restore(replace(job, status=Status.QUEUED) for job in jobs)
        with self.scheduler.changing():
            self.scheduler.tick()


def placed_as_before(scheduler: Scheduler) -> dict[str, tuple[Allocation, ...]]:
    """What is placed if every waiting job is looked at, one after the other: none of these has a
    limit, so each that finds no room keeps what it could use of a node from those behind it."""
    cluster = scheduler.cluster.copy()
    kept: list[tuple[ResourceRequest, set[str]]] = []
    placed: dict[str, tuple[Allocation, ...]] = {}
    for job in scheduler.waiting:
        request = job.resource_request
        if job.status is not Status.QUEUED:
            continue
        usable = {
            node.spec.node_id
            for node in cluster.nodes.values()
            if node.drain is None and node.fits_empty(request)
        }
        if len(usable) < request.nodes:
            continue
        spoken_for = {
            node_id
            for node_id, node in cluster.nodes.items()
            if not leaves_room(
                node,
                [each for share in placed.values() for each in share if each.node_id == node_id],
                request,
                [Ahead(other, 1) for other, nodes in kept if node_id in nodes],
            )
        }
        placement = cluster.place(request, without=spoken_for if kept else ())
        if placement is None:
            kept.append((request, usable))
            continue
        cluster.allocate(job.job_id, placement)
        placed[job.job_id] = placement
    return placed


REQUESTS = st.builds(
    ResourceRequest,
    nodes=st.integers(1, 2),
    gpus=st.integers(0, 2),
    cpus=st.integers(0, 2),
    memory=st.sampled_from([0, 1 << 30]),
    node_ids=st.sampled_from([(), ("n1",), ("n0", "n2")]),
)
JOBS = st.lists(
    st.tuples(
        REQUESTS,
        st.sampled_from(["a", "b"]),
        st.sampled_from(["default", "night"]),
        st.integers(0, 3),
        st.sampled_from([0, NOW + SECOND]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(jobs=JOBS, drained=st.sets(st.sampled_from(["n0", "n1", "n2", "n3"])))
def test_who_is_placed_is_as_if_all_were_looked_at(
    jobs: list[tuple[ResourceRequest, str, str, int, int]], drained: set[str]
) -> None:
    bench = Bench(nodes=4, cpus=2)
    records = [
        replace(
            record(f"j{n}", request, tenant=tenant, queue=queue, priority=priority),
            created_at=n + 1,
            not_before=not_before,
            status=Status.PENDING if not_before else Status.QUEUED,
        )
        for n, (request, tenant, queue, priority, not_before) in enumerate(jobs)
    ]
    bench.scheduler.restore(records)
    for node_id in drained:
        bench.cluster.set_drain(node_id, "")
    expected = placed_as_before(bench.scheduler)
    order = sorted(records, key=lambda job: (job.not_before > NOW, -job.priority, job.created_at))
    assert [job.job_id for job in bench.scheduler.waiting] == [job.job_id for job in order]
    with bench.scheduler.changing() as transition:
        bench.scheduler.tick()
    assert {job.job_id: job.placement for job in transition.changed} == expected
    bench.scheduler.validate()


@settings(deadline=None)
@given(jobs=JOBS, size=st.integers(1, 7))
def test_pages_of_the_queue_have_each_job_of_the_tenant_once(
    jobs: list[tuple[ResourceRequest, str, str, int, int]], size: int
) -> None:
    bench = Bench()
    bench.fill(1)
    for n, (_, tenant, queue, priority, not_before) in enumerate(jobs):
        bench.submit(
            record(f"w{n}", tenant=tenant, queue=queue, priority=priority, not_before=not_before)
        )
    waiting = list(bench.scheduler.waiting)
    for tenant, name in (("a", ""), ("a", "night"), ("b", "default"), ("c", "")):
        own = [job for job in waiting if job.tenant_id == tenant and name in ("", job.queue_name)]
        token = ""
        seen: list[QueuedJob] = []
        while True:
            page = bench.view.queue(tenant, name, page_size=size, page_token=token)
            assert page.total_queued == len(own)
            assert len(page.queued_jobs) <= size
            seen += page.queued_jobs
            token = page.next_page_token
            if not token:
                break
        assert [job.job_id for job in seen] == [job.job_id for job in own]
        for job in seen:
            alike = [each.job_id for each in waiting if each.queue_name == job.queue_name]
            assert job.position == alike.index(job.job_id) + 1


def test_a_page_token_of_another_queue_is_refused() -> None:
    bench = Bench()
    bench.fill(5)
    token = bench.view.queue("t", page_size=2).next_page_token
    for tenant, name in (("t", "default"), ("u", "")):
        with pytest.raises(InvalidArgument):
            bench.view.queue(tenant, name, page_size=2, page_token=token)


def test_jobs_far_behind_wait_as_long_as_if_all_were_played() -> None:
    bench = Bench(cpus=4)
    bench.fill(4 + 1_000)
    bench.run_times.add_seconds("default", 60)
    forecast = bench.scheduler.forecast()
    waits = [bench.scheduler.wait_of(job, forecast) for job in bench.scheduler.waiting]
    assert waits == sorted(waits)
    assert waits[:4] == [60] * 4
    # Four at a time, a minute each.
    assert all(abs(wait - 60 * (1 + n / 4)) <= 60 for n, wait in enumerate(waits))


def same(_: int) -> ResourceRequest:
    return ResourceRequest()


def different(number: int) -> ResourceRequest:
    return ResourceRequest(memory=number + 1)


class Looks:
    """Counts what is looked at: nodes for a request, and jobs whose run time is asked for."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bench = bench
        self._nodes = 0
        self.counts: dict[str, int] = {}

        def fits_empty(node: NodeState, request: ResourceRequest) -> bool:
            self._nodes += 1
            return _FITS_EMPTY(node, request)

        monkeypatch.setattr(NodeState, "fits_empty", fits_empty)

    def count(self, what: str, do: Callable[[], object]) -> None:
        self._nodes = self._bench.run_times.played = 0
        do()
        self.counts[what] = self._nodes + self._bench.run_times.played


_FITS_EMPTY = NodeState.fits_empty


def looks_with(
    waiting: int, request_of: Callable[[int], ResourceRequest], monkeypatch: pytest.MonkeyPatch
) -> dict[str, int]:
    bench = Bench()
    bench.fill(waiting, request_of)
    scheduler, looks = bench.scheduler, Looks(bench, monkeypatch)
    new = record("new", priority=1)
    looks.count("submit", lambda: bench.submit(new))
    looks.count("wait", lambda: scheduler.wait_of(scheduler.jobs["new"], scheduler.forecast()))
    looks.count("queue", lambda: bench.view.queue("t", page_size=20))
    looks.count("urgent", lambda: bench.submit(record("now", priority=9)))
    looks.count("check", lambda: rehearse(scheduler, record("try", priority=2)))
    looks.count("tick", scheduler.next_tick)
    return looks.counts


@pytest.mark.parametrize("request_of", [same, different])
def test_what_waits_is_not_walked_through(
    request_of: Callable[[int], ResourceRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = looks_with(2 * PLAYED, request_of, monkeypatch)
    many = looks_with(20_000, request_of, monkeypatch)
    assert few == many


def test_the_index_follows_every_state_of_a_job() -> None:
    bench = Bench()
    bench.submit(record("a"), record("b"), record("c", not_before=NOW + SECOND))
    scheduler = bench.scheduler
    assert list(scheduler.holding) == ["a"]
    assert [job.job_id for job in scheduler.waiting] == ["b", "c"]
    for job_id in ("a", "b", "c"):
        with scheduler.changing():
            scheduler.cancel(job_id, "why not")
        scheduler.validate()
    assert not scheduler.jobs
    assert not scheduler.holding
    assert len(scheduler.waiting) == 0
    assert not any(job.status in WAITING for job in scheduler.jobs.values())
