"""What one tenant is shown of the nodes and of the queue."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.coordinator.cluster.gpus import GpuMeter, GpuUse
from app.coordinator.cluster.messages import node_message
from app.coordinator.cluster.nodes import NodeState
from app.coordinator.errors import NotFound
from app.coordinator.jobs.messages import time_message
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.scheduling.estimates import Forecast
from app.coordinator.scheduling.queues.line import FairPositions
from app.coordinator.scheduling.queues.waiting import Place
from app.coordinator.scheduling.reasons import WaitReasons
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.storage.page_tokens import make_token, read_token
from generated.mindcoordinator.v1 import cluster_pb2, jobs_pb2, queue_pb2

#: Seconds that an outlook is used again for those who watch.
_SHARED_FOR: Final = 1.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """Why jobs wait, and how long they are expected to, as of a moment."""

    forecast: Forecast
    reasons: WaitReasons
    #: Seconds that a job with default resources would wait if it were submitted now.
    newcomer_wait: int
    #: Which state of the store it was made of, and when on the steady clock.
    commits: int
    made_at: float
    #: The positions of the first jobs of fair queues, by job id, of those that were asked for.
    fair_positions: dict[str, FairPositions] = field(default_factory=dict)


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
        self._shared: Outlook | None = None

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
        holders = {
            gpu: job_id
            for job_id in own
            for allocation in jobs[job_id].placement
            if allocation.node_id == node.spec.node_id
            for gpu in allocation.gpus
        }
        return node_message(
            node,
            own_jobs=own,
            holders=holders,
            used={} if node.spec.virtual else used,
            now=self._clock(),
        )

    def queue(
        self,
        tenant_id: str,
        queue_name: str = "",
        *,
        page_size: int,
        page_token: str = "",
        outlook: Outlook | None = None,
    ) -> queue_pb2.GetQueueStatusResponse:
        """A page of the tenant's waiting jobs in the order of placement, of all queues or of one
        (AIP-158). Raises InvalidArgument for a foreign token.

        An outlook that is given is one of the default queue.
        """
        asked = ["queue", tenant_id, queue_name]
        behind = None
        if page_token:
            pending, *rest = read_token(page_token, asked, int, int, int, str)
            behind = Place(bool(pending), *rest)
        outlook = outlook or self.outlook(queue_name or "default")
        name = queue_name or None
        waiting = self._scheduler.waiting
        jobs = waiting.page(tenant_id, name, behind=behind, size=page_size + 1)
        page = jobs[:page_size]
        return queue_pb2.GetQueueStatusResponse(
            queued_jobs=[self._queued(job, outlook) for job in page],
            total_queued=waiting.count(tenant_id, name),
            estimated_wait_seconds=outlook.newcomer_wait,
            next_page_token=make_token(asked, *_numbers(waiting.place_of(page[-1])))
            if len(jobs) > page_size
            else "",
        )

    def _queued(self, job: JobRecord, outlook: Outlook) -> queue_pb2.QueuedJob:
        resources = job.submission.resource_config
        reason = outlook.reasons.of(job)
        return queue_pb2.QueuedJob(
            job_id=job.job_id,
            tenant_id=job.tenant_id,
            name=job.name,
            priority=job.priority,
            gpu_count=resources.gpu_count,
            gpu_type=resources.gpu_type,
            queued_at=time_message(job.queued_at or job.created_at),
            position=self._scheduler.position(job, outlook.fair_positions),
            estimated_wait_seconds=self._scheduler.wait_of(job, outlook.forecast),
            queue_name=job.queue_name,
            reason=reason.number,
            message=reason.message,
            behind_job_id=reason.behind_job_id,
        )

    def outlook(self, queue_name: str = "default") -> Outlook:
        """The head of the queue played forward, as it is now; `queue_name` is the newcomer's."""
        scheduler = self._scheduler
        forecast = scheduler.forecast()
        newcomer = _newcomer(queue_name, self._clock())
        reasons, newcomer_wait = scheduler.reasons_and_wait(newcomer, forecast)
        return Outlook(
            forecast=forecast,
            reasons=reasons,
            newcomer_wait=newcomer_wait,
            commits=self._commits(),
            made_at=time.monotonic(),
        )

    def shared_outlook(self) -> Outlook:
        """The outlook of the default queue that all who watch share: it may be a second old."""
        shared = self._shared
        if shared is None or time.monotonic() - shared.made_at >= _SHARED_FOR:
            shared = self._shared = self.outlook()
        return shared


def _numbers(place: Place) -> tuple[int | str, ...]:
    return int(place.pending), *place[1:]


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
