"""The calls about the cluster, its nodes and the queue."""

from collections.abc import Iterable, Iterator

from typing_extensions import override

from app.coordinator.cluster.listing import NodePages
from app.coordinator.cluster.messages import node_message
from app.coordinator.errors import NotFound
from app.coordinator.identity.peer import Peer
from app.coordinator.jobs.listing import PAGE_BYTES
from app.coordinator.jobs.messages import time_message
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.states import HOLDING, WAITING
from app.coordinator.service.base import Calls, page_size
from app.coordinator.service.features import FEATURES
from app.coordinator.service.interceptor import Context, peer_of
from app.shortening import shortened
from app.telemetry.audit import Action, Actor, Identity, Target, record
from generated.mindcoordinator.v1 import cluster_pb2, jobs_pb2, queue_pb2


class ClusterCalls(Calls):
    """The calls about nodes and the queue."""

    @override
    async def GetClusterStatus(
        self, request: cluster_pb2.GetClusterStatusRequest, context: Context
    ) -> cluster_pb2.ClusterStatus:
        nodes = list(self._scheduler.cluster.nodes.values())
        online = [node for node in nodes if node.drain is None]
        total = sum(len(node.spec.gpus) for node in nodes)
        taken = sum(len(node.taken_gpus) for node in nodes)
        jobs = self._scheduler.jobs.values()
        if total:
            used = taken / total
        else:
            cpus = sum(node.spec.cpus for node in nodes)
            used = sum(node.taken_cpus for node in nodes) / cpus
        return cluster_pb2.ClusterStatus(
            total_nodes=len(nodes),
            online_nodes=len(online),
            draining_nodes=len(nodes) - len(online),
            total_gpus=total,
            allocated_gpus=taken,
            available_gpus=sum(len(node.spec.gpus) - len(node.taken_gpus) for node in online),
            active_jobs=sum(1 for job in jobs if job.status in HOLDING),
            queued_jobs=sum(1 for job in jobs if job.status in WAITING),
            cluster_utilization=used,
            features=FEATURES,
        )

    @override
    async def ListNodes(
        self, request: cluster_pb2.ListNodesRequest, context: Context
    ) -> cluster_pb2.ListNodesResponse:
        peer = peer_of(context)
        page = NodePages(self._scheduler.cluster).page(
            status_filter=request.status_filter,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return cluster_pb2.ListNodesResponse(
            nodes=[self._node_message(peer, node_id) for node_id in page.node_ids],
            next_page_token=page.next_page_token,
            total_count=page.total_count,
        )

    @override
    async def GetNode(
        self, request: cluster_pb2.GetNodeRequest, context: Context
    ) -> cluster_pb2.Node:
        return self._node_message(peer_of(context), request.node_id)

    @override
    async def DrainNode(
        self, request: cluster_pb2.DrainNodeRequest, context: Context
    ) -> cluster_pb2.Node:
        peer = peer_of(context)
        reason = shortened(request.reason, 1000)
        self._apply(
            lambda scheduler: (
                scheduler.drain(request.node_id, force=request.force, reason=reason),
                None,
            )
        )
        _record(Action.NODE_DRAIN, peer, request.node_id)
        return self._node_message(peer, request.node_id)

    @override
    async def EnableNode(
        self, request: cluster_pb2.EnableNodeRequest, context: Context
    ) -> cluster_pb2.Node:
        peer = peer_of(context)
        self._apply(lambda scheduler: (scheduler.enable(request.node_id), None))
        _record(Action.NODE_ENABLE, peer, request.node_id)
        return self._node_message(peer, request.node_id)

    @override
    async def GetQueueStatus(
        self, request: queue_pb2.GetQueueStatusRequest, context: Context
    ) -> queue_pb2.GetQueueStatusResponse:
        peer = peer_of(context)
        now = self._parts.clock()
        newcomer = _newcomer(peer, request.queue_name or "default", now)
        waits = self._scheduler.waits()
        places: dict[str, int] = {}
        own = []
        for job in self._scheduler.queue():
            place = places[job.queue_name] = places.get(job.queue_name, 0) + 1
            if job.tenant_id != peer.tenant_id or request.queue_name not in ("", job.queue_name):
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
                    estimated_wait_seconds=waits[job.job_id],
                    queue_name=job.queue_name,
                )
            )
        own.sort(key=lambda queued: queued.position)
        return queue_pb2.GetQueueStatusResponse(
            queued_jobs=list(_fitting(own)),
            total_queued=len(own),
            estimated_wait_seconds=self._scheduler.wait_of_newcomer(newcomer),
        )

    def _node_message(self, peer: Peer, node_id: str) -> cluster_pb2.Node:
        node = self._scheduler.cluster.nodes.get(node_id)
        if node is None:
            raise NotFound("the node does not exist")
        own = sorted(
            job_id
            for job_id in node.job_ids
            if self._scheduler.jobs[job_id].tenant_id == peer.tenant_id
        )
        used = {} if node.spec.virtual else self._parts.gpus.latest()
        return node_message(node, own_jobs=own, used=used, now=self._parts.clock())


def _fitting(queued: Iterable[queue_pb2.QueuedJob]) -> Iterator[queue_pb2.QueuedJob]:
    """The first of them, as many as an answer may hold."""
    size = 0
    for job in queued:
        size += job.ByteSize()
        if size > PAGE_BYTES:
            return
        yield job


def _newcomer(peer: Peer, queue_name: str, now: int) -> JobRecord:
    """A job as it would be with default resources, to ask how long it would wait."""
    return JobRecord(
        job_id="",
        tenant_id=peer.tenant_id,
        user_id="",
        name="",
        submission=jobs_pb2.SubmitJobRequest(),
        resource_request=ResourceRequest(),
        created_at=now,
        updated_at=now,
        queue_name=queue_name,
    )


def _record(action: Action, peer: Peer, node_id: str) -> None:
    """Write what was done to a node to the audit trail."""
    who = Identity(Actor.USER, peer.tenant_id, peer.user_id or None)
    record(action, by=who, on=Target("node", node_id))
