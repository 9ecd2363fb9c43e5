"""Nodes as messages of the contract."""

from collections.abc import Mapping

from app.coordinator.cluster.gpus import GpuUse
from app.coordinator.cluster.nodes import NodeState
from app.coordinator.jobs.messages import time_message
from generated.mindcoordinator.v1.cluster_pb2 import Gpu, Node, NodeStatus


def node_status(node: NodeState) -> NodeStatus.ValueType:
    """Whether a node takes jobs."""
    if node.problem:
        return NodeStatus.NODE_STATUS_OFFLINE
    if node.drain is None:
        return NodeStatus.NODE_STATUS_ONLINE
    if node.job_ids:
        return NodeStatus.NODE_STATUS_DRAINING
    return NodeStatus.NODE_STATUS_DRAINED


def node_message(
    node: NodeState,
    *,
    own_jobs: list[str],
    holders: Mapping[int, str],
    used: Mapping[int, GpuUse],
    now: int,
) -> Node:
    """A node in full; `own_jobs` are those of the caller's tenant that run there.

    `holders` are those of them that hold GPUs, and `used` is what is known of the GPUs' use,
    both by index.
    """
    unknown = GpuUse(None, None)
    spec = node.spec
    types = sorted({gpu.type for gpu in spec.gpus})
    return Node(
        node_id=spec.node_id,
        hostname=spec.hostname,
        status=node_status(node),
        virtual=spec.virtual,
        gpu_type=types[0] if len(types) == 1 else "",
        total_gpus=len(spec.gpus),
        allocated_gpus=len(node.taken_gpus),
        gpus=[
            Gpu(
                index=index,
                type=gpu.type,
                memory_bytes=gpu.memory,
                utilization=used.get(index, unknown).utilization,
                memory_used_bytes=used.get(index, unknown).memory_bytes,
                allocated=index in node.taken_gpus,
                job_id=holders.get(index, ""),
            )
            for index, gpu in enumerate(spec.gpus)
        ],
        total_cpus=spec.cpus,
        allocated_cpus=node.taken_cpus,
        total_memory_bytes=spec.memory,
        allocated_memory_bytes=node.taken_memory,
        labels=dict(spec.labels),
        running_jobs=len(node.job_ids),
        running_job_ids=own_jobs,
        drain_reason=node.drain or node.problem,
        last_heartbeat=time_message(now),
    )
