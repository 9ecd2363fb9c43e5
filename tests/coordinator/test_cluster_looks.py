"""Nodes and the queue in a stream: what has changed, at most once a second."""

from typing import Any, cast

import pytest

from app.coordinator.cluster.gpus import GpuUse
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.scheduling.cluster_view import ClusterView, Outlook
from app.coordinator.scheduling.estimates import Forecast, RunTimes
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.service.watch_jobs.looks import ClusterLooks
from generated.mindcoordinator.v1.cluster_pb2 import Node
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusResponse, QueuedJob
from generated.mindcoordinator.v1.watch_jobs_pb2 import WatchJobsResponse


class View:
    """A cluster as the test has it, which counts how often it is looked at."""

    def __init__(self) -> None:
        self.count = 0
        self.sample: dict[int, GpuUse] = {}
        self.drain = ""
        self.waits: dict[str, int] = {}
        self.looks = 0
        self.now = 0

    def commits(self) -> int:
        return self.count

    def gpu_sample(self) -> dict[int, GpuUse]:
        return dict(self.sample)

    def nodes(self, tenant_id: str) -> list[Node]:
        self.looks += 1
        self.now += 1
        node = Node(node_id="n", drain_reason=self.drain)
        node.last_heartbeat.FromSeconds(self.now)
        return [node, Node(node_id="o")]

    def shared_outlook(self) -> Outlook:
        return Outlook(Forecast({}, 0.0, 0.0), REASONS, 0, self.count, 0.0)

    def queue(self, tenant_id: str, *, page_size: int, outlook: Outlook) -> GetQueueStatusResponse:
        self.looks += 1
        return GetQueueStatusResponse(
            queued_jobs=[
                QueuedJob(job_id=job_id, estimated_wait_seconds=wait)
                for job_id, wait in self.waits.items()
            ],
            total_queued=len(self.waits),
        )


REASONS = Scheduler(cluster=Cluster(()), clock=lambda: 0, run_times=RunTimes()).reasons()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def looks_of(view: View, clock: Clock, **wanted: Any) -> ClusterLooks:
    wanted = {"nodes": False, "queue": False, **wanted}
    return ClusterLooks(cast(ClusterView, view), "t", clock=clock, **wanted)


def look(looks: ClusterLooks) -> WatchJobsResponse:
    message = WatchJobsResponse()
    looks.add_to(message)
    return message


def test_only_nodes_that_changed_are_told(view: View, clock: Clock) -> None:
    looks = looks_of(view, clock, nodes=True)
    assert [node.node_id for node in look(looks).nodes] == ["n", "o"]
    clock.now += 1
    view.count += 1
    # Its heartbeat alone is no change.
    assert not look(looks).nodes
    clock.now += 1
    view.count += 1
    view.drain = "repairs"
    assert [node.node_id for node in look(looks).nodes] == ["n"]


def test_a_change_within_the_second_is_told_behind_it(view: View, clock: Clock) -> None:
    looks = looks_of(view, clock, nodes=True)
    look(looks)
    clock.now += 0.5
    view.count += 1
    view.drain = "repairs"
    assert not look(looks).nodes
    assert looks.seconds_left() == 0.5
    clock.now += 0.5
    assert look(looks).nodes


def test_nothing_is_looked_at_where_nothing_can_have_changed(view: View, clock: Clock) -> None:
    looks = looks_of(view, clock, nodes=True, queue=True)
    look(looks)
    assert view.looks == 2
    for _ in range(5):
        clock.now += 1
        assert not look(looks).ListFields()
    assert view.looks == 2
    clock.now += 1
    view.sample = {0: GpuUse(0.5, 1)}
    look(looks)
    assert view.looks == 3


def test_waits_that_only_pass_are_not_told_again(view: View, clock: Clock) -> None:
    looks = looks_of(view, clock, queue=True)
    view.waits = {"a": 100, "b": 300}
    assert look(looks).HasField("queue")
    clock.now += 60
    view.count += 1
    view.waits = {"a": 45, "b": 232}
    assert not look(looks).HasField("queue")
    clock.now += 10
    view.count += 1
    view.waits = {"a": 30, "b": 400}
    assert look(looks).HasField("queue")
    clock.now += 1
    view.count += 1
    view.waits = {"b": 399}
    assert look(looks).queue.total_queued == 1
    clock.now += 400
    view.count += 1
    view.waits = {"b": 0}
    assert look(looks).HasField("queue")
