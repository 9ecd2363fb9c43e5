"""The calls about the cluster, its nodes and the queue."""

from typing_extensions import override

from app.coordinator.cluster.listing import NodePages
from app.coordinator.identity.peer import Peer
from app.coordinator.service.base import Calls, page_size
from app.coordinator.service.features import FEATURES
from app.coordinator.service.interceptor import Context, peer_of
from app.shortening import shortened
from app.telemetry.audit import Action, Actor, Identity, Target, record
from generated.mindcoordinator.v1 import cluster_pb2, queue_pb2


class ClusterCalls(Calls):
    """The calls about nodes and the queue."""

    @override
    async def GetClusterStatus(
        self, request: cluster_pb2.GetClusterStatusRequest, context: Context
    ) -> cluster_pb2.ClusterStatus:
        nodes = list(self._scheduler.cluster.nodes.values())
        online = [node for node in nodes if node.takes_jobs]
        draining = [node for node in nodes if node.drain is not None]
        total = sum(len(node.spec.gpus) for node in nodes)
        taken = sum(len(node.taken_gpus) for node in nodes)
        if total:
            used = taken / total
        else:
            cpus = sum(node.spec.cpus for node in nodes)
            used = sum(node.taken_cpus for node in nodes) / cpus if cpus else 0.0
        return cluster_pb2.ClusterStatus(
            total_nodes=len(nodes),
            online_nodes=len(online),
            draining_nodes=len(draining),
            total_gpus=total,
            allocated_gpus=taken,
            available_gpus=sum(len(node.spec.gpus) - len(node.taken_gpus) for node in online),
            active_jobs=len(self._scheduler.holding),
            queued_jobs=len(self._scheduler.waiting),
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
        return self._view.queue(
            peer.tenant_id,
            request.queue_name,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )

    def _node_message(self, peer: Peer, node_id: str) -> cluster_pb2.Node:
        return self._view.node(peer.tenant_id, node_id)


def _record(action: Action, peer: Peer, node_id: str) -> None:
    """Write what was done to a node to the audit trail."""
    who = Identity(Actor.USER, peer.tenant_id, peer.user_id or None)
    record(action, by=who, on=Target("node", node_id))
