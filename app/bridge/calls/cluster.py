"""Calls about nodes and the queue."""

from app.bridge.calls.base import Calls
from app.bridge.converters import JsonObject
from app.caller import Caller
from generated.mindcoordinator.v1.cluster_pb2 import (
    DrainNodeRequest,
    EnableNodeRequest,
    GetClusterStatusRequest,
    GetNodeRequest,
    ListNodesRequest,
)
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusRequest


class ClusterCalls(Calls):
    """Reads the cluster and changes its nodes."""

    async def get_cluster_status(self, caller: Caller) -> JsonObject:
        """Fetch cluster-wide totals."""
        return await self._call(
            "GetClusterStatus", self._stub.GetClusterStatus, caller, GetClusterStatusRequest()
        )

    async def list_nodes(
        self,
        caller: Caller,
        *,
        status_filter: str = "",
        page_size: int = 20,
        page_token: str = "",
    ) -> JsonObject:
        """Fetch a page of the cluster's nodes."""
        return await self._call(
            "ListNodes",
            self._stub.ListNodes,
            caller,
            ListNodesRequest(
                status_filter=status_filter, page_size=page_size, page_token=page_token
            ),
        )

    async def get_node(self, caller: Caller, node_id: str) -> JsonObject:
        """Fetch a node's full status."""
        return await self._call(
            "GetNode", self._stub.GetNode, caller, GetNodeRequest(node_id=node_id)
        )

    async def drain_node(
        self, caller: Caller, node_id: str, *, force: bool = False, reason: str = ""
    ) -> JsonObject:
        """Stop scheduling new jobs onto a node; `force` aborts those that run there."""
        return await self._call(
            "DrainNode",
            self._stub.DrainNode,
            caller,
            DrainNodeRequest(node_id=node_id, force=force, reason=reason),
        )

    async def enable_node(self, caller: Caller, node_id: str) -> JsonObject:
        """Take a drained or disabled node back into service."""
        return await self._call(
            "EnableNode", self._stub.EnableNode, caller, EnableNodeRequest(node_id=node_id)
        )

    async def get_queue_status(
        self, caller: Caller, *, queue_name: str = "", page_size: int = 20, page_token: str = ""
    ) -> JsonObject:
        """Fetch a page of the tenant's waiting jobs, of all queues unless one is named."""
        return await self._call(
            "GetQueueStatus",
            self._stub.GetQueueStatus,
            caller,
            GetQueueStatusRequest(
                queue_name=queue_name, page_size=page_size, page_token=page_token
            ),
        )
