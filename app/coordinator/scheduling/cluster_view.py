"""What one tenant is shown of the nodes and of the queue."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from app.coordinator.cluster.gpus import GpuMeter, GpuUse
from app.coordinator.cluster.messages import node_message
from app.coordinator.cluster.nodes import NodeState
from app.coordinator.errors import NotFound
from app.coordinator.jobs.listing import PAGE_BYTES
from app.coordinator.jobs.messages import time_message
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.scheduling.scheduler import Scheduler
from generated.mindcoordinator.v1 import cluster_pb2, jobs_pb2, queue_pb2

#: Seconds that a forecast is used again for those who watch.
_SHARED_FOR: Final = 1.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """The queue of all tenants, and how long each job in it is expected to wait."""

    #: In the order of placement.
    queue: list[JobRecord]
    #: Seconds, by job id.
    waits: dict[str, int]
    #: Seconds that a job with default resources would wait if it were submitted now.
    newcomer_wait: int
    #: Which state of the store it was made of, and when on the steady clock.
    commits: int
    made_at: float


class ClusterView:
    """Looks at the scheduler, for whichever tenant asks."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        gpus: GpuMeter,
        clock: Callable[[], int],
        commits: Callable[[], int],
    ) -> None:
        """`commits` counts the changes of the store."""
        self._scheduler = scheduler
        self._gpus = gpus
        self._clock = clock
        self._commits = commits
        self._shared: Forecast | None = None

    def commits(self) -> int:
        """Count the changes of the store: without one, no queue has changed."""
        return self._commits()

    def node(self, tenant_id: str, node_id: str) -> cluster_pb2.Node:
        """A node in full. Raises NotFound."""
        node = self._scheduler.cluster.nodes.get(node_id)
        if node is None:
            raise NotFound("the node does not exist")
        return self._node(tenant_id, node, self._gpus.latest())

    def gpu_sample(self) -> Mapping[int, GpuUse]:
        """The newest sample of the GPUs' use, by index."""
        return self._gpus.latest()

    def nodes(self, tenant_id: str) -> list[cluster_pb2.Node]:
        """All nodes in full."""
        used = self._gpus.latest()
        nodes = self._scheduler.cluster.nodes.values()
        return [self._node(tenant_id, node, used) for node in nodes]

    def _node(
        self, tenant_id: str, node: NodeState, used: Mapping[int, GpuUse]
    ) -> cluster_pb2.Node:
        jobs = self._scheduler.jobs
        own = sorted(job_id for job_id in node.job_ids if jobs[job_id].tenant_id == tenant_id)
        return node_message(
            node, own_jobs=own, used={} if node.spec.virtual else used, now=self._clock()
        )

    def queue(
        self, tenant_id: str, queue_name: str = "", *, forecast: Forecast | None = None
    ) -> queue_pb2.GetQueueStatusResponse:
        """The tenant's waiting jobs, by position, of all queues or of one.

        A forecast that is given is one of the default queue.
        """
        forecast = forecast or self.forecast(queue_name or "default")
        places: dict[str, int] = {}
        own = []
        for job in forecast.queue:
            place = places[job.queue_name] = places.get(job.queue_name, 0) + 1
            if job.tenant_id != tenant_id or queue_name not in ("", job.queue_name):
                continue
            resources = job.submission.resource_config
            own.append(
                queue_pb2.QueuedJob(
                    job_id=job.job_id,
                    tenant_id=job.tenant_id,
                    name=job.name,
                    priority=job.priority,
                    gpu_count=resources.gpu_count,
                    gpu_type=resources.gpu_type,
                    queued_at=time_message(job.queued_at or job.created_at),
                    position=place,
                    estimated_wait_seconds=forecast.waits[job.job_id],
                    queue_name=job.queue_name,
                )
            )
        own.sort(key=lambda queued: queued.position)
        return queue_pb2.GetQueueStatusResponse(
            queued_jobs=list(_fitting(own)),
            total_queued=len(own),
            estimated_wait_seconds=forecast.newcomer_wait,
        )

    def forecast(self, queue_name: str = "default") -> Forecast:
        """The queue played forward, as it is now; `queue_name` is the newcomer's."""
        scheduler = self._scheduler
        return Forecast(
            queue=scheduler.queue(),
            waits=scheduler.waits(),
            newcomer_wait=scheduler.wait_of_newcomer(_newcomer(queue_name, self._clock())),
            commits=self._commits(),
            made_at=time.monotonic(),
        )

    def shared_forecast(self) -> Forecast:
        """The forecast of the default queue that all who watch share: it may be a second old."""
        shared = self._shared
        if shared is None or time.monotonic() - shared.made_at >= _SHARED_FOR:
            shared = self._shared = self.forecast()
        return shared


def _fitting(queued: Iterable[queue_pb2.QueuedJob]) -> Iterator[queue_pb2.QueuedJob]:
    """The first of them, as many as an answer may hold."""
    size = 0
    for job in queued:
        size += job.ByteSize()
        if size > PAGE_BYTES:
            return
        yield job


def _newcomer(queue_name: str, now: int) -> JobRecord:
    """A job as it would be with default resources, to ask how long it would wait."""
    return JobRecord(
        job_id="",
        tenant_id="",
        user_id="",
        name="",
        submission=jobs_pb2.SubmitJobRequest(),
        resource_request=ResourceRequest(),
        created_at=now,
        updated_at=now,
        queue_name=queue_name,
    )
