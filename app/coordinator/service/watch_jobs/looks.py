"""What a stream tells of the nodes and of the queue: what has changed, at most once a second."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from app.coordinator.cluster.gpus import GpuUse
from app.coordinator.scheduling.cluster_view import ClusterView
from generated.mindcoordinator.v1.cluster_pb2 import Node
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusResponse
from generated.mindcoordinator.v1.watch_jobs_pb2 import WatchJobsResponse

#: Seconds between two looks of a stream.
INTERVAL: Final = 1.0
#: Waiting jobs that are told of: the first. GetQueueStatus has the others.
MOST_QUEUED: Final = 100
#: Seconds that a wait may differ from what was told, less the time that has passed.
WAIT_TOLERANCE: Final = 10


class ClusterLooks:
    """Looks at the nodes and the queue for one stream, and remembers what it has told."""

    def __init__(
        self,
        view: ClusterView,
        tenant_id: str,
        *,
        nodes: bool,
        queue: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        self._tenant_id = tenant_id
        self._wants_nodes = nodes
        self._wants_queue = queue
        self._clock = clock
        self._looked_at: float | None = None
        #: The changes and the sample that the nodes were seen with.
        self._seen: tuple[int, Mapping[int, GpuUse]] | None = None
        self._outlook_of: int | None = None
        self._nodes: dict[str, Node] = {}
        self._queue: tuple[GetQueueStatusResponse, float] | None = None

    def seconds_left(self) -> float:
        """How long until the next look."""
        if self._looked_at is None:
            return 0.0
        return max(self._looked_at + INTERVAL - self._clock(), 0.0)

    def add_to(self, message: WatchJobsResponse) -> None:
        """Add what has changed since the last look, unless that was less than a second ago."""
        if self.seconds_left():
            return
        self._looked_at = self._clock()
        if self._wants_nodes:
            self._add_nodes(message)
        if self._wants_queue:
            self._add_queue(message)

    def _add_nodes(self, message: WatchJobsResponse) -> None:
        seen = (self._view.commits(), self._view.gpu_sample())
        if seen == self._seen:
            return
        self._seen = seen
        for node in self._view.nodes(self._tenant_id):
            told = Node()
            told.CopyFrom(node)
            # It is another one at each look.
            told.ClearField("last_heartbeat")
            if self._nodes.get(node.node_id) != told:
                self._nodes[node.node_id] = told
                message.nodes.append(node)

    def _add_queue(self, message: WatchJobsResponse) -> None:
        if self._outlook_of == self._view.commits():
            return
        outlook = self._view.shared_outlook()
        # If it is older than the newest change, the next look is at a newer one.
        self._outlook_of = outlook.commits
        queue = self._view.queue(self._tenant_id, page_size=MOST_QUEUED, outlook=outlook)
        now = self._clock()
        if self._queue is None or _differs(*self._queue, queue, now):
            self._queue = (queue, now)
            message.queue.CopyFrom(queue)


def _differs(
    told: GetQueueStatusResponse, told_at: float, queue: GetQueueStatusResponse, now: float
) -> bool:
    """Whether a queue says more than what was told of it, and that time has passed."""
    before, after = GetQueueStatusResponse(), GetQueueStatusResponse()
    before.CopyFrom(told)
    after.CopyFrom(queue)
    waits = [
        (told.estimated_wait_seconds, queue.estimated_wait_seconds),
        *(
            (each.estimated_wait_seconds, other.estimated_wait_seconds)
            for each, other in zip(told.queued_jobs, queue.queued_jobs, strict=False)
        ),
    ]
    for message in (before, after):
        message.ClearField("estimated_wait_seconds")
        for job in message.queued_jobs:
            job.ClearField("estimated_wait_seconds")
    passed = now - told_at
    return before != after or any(
        # Nothing is to be waited for any more, or something is now.
        bool(was) is not bool(wait) or abs(max(was - passed, 0.0) - wait) > WAIT_TOLERANCE
        for was, wait in waits
    )
