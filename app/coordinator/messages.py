"""The coordinator's values as messages of the contract."""

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from generated.mindcoordinator.v1 import jobs_pb2
from generated.mindcoordinator.v1.cluster_pb2 import Gpu, Node, NodeStatus
from generated.mindcoordinator.v1.jobs_pb2 import Job, JobProgress, JobStatus

from .checkpoint_rows import TOLD
from .cluster import NodeState
from .gpus import GpuUse
from .records import Checkpoint, JobRecord, checkpoint_url
from .states import Status


def status_message(status: Status) -> JobStatus.ValueType:
    """The contract's value of a state."""
    return JobStatus.Value(f"JOB_STATUS_{status.name}")


def time_message(microseconds: int) -> Timestamp:
    """A moment."""
    stamp = Timestamp()
    stamp.FromMicroseconds(microseconds)
    return stamp


def job_message(job: JobRecord) -> Job:
    """A job in full."""
    given = job.submission
    message = Job(
        job_id=job.job_id,
        tenant_id=job.tenant_id,
        user_id=job.user_id,
        name=job.name,
        status=status_message(job.status),
        message=job.message,
        error_message=job.error_message,
        training_config=given.training_config,
        data_config=given.data_config,
        resource_config=given.resource_config,
        output_config=given.output_config,
        scheduling_config=given.scheduling_config,
        labels=given.labels,
        created_at=time_message(job.created_at),
        updated_at=time_message(job.updated_at),
        revision=job.revision,
        parent_job_id=job.parent_job_id,
        run_count=job.run_count,
        progress=JobProgress(
            step=job.progress.step,
            total_steps=job.progress.total_steps,
            epoch=job.progress.epoch,
            loss=job.progress.loss,
        ),
        checkpoints=[checkpoint_message(job, each) for each in job.checkpoints[-TOLD:]],
        checkpoint_count=job.checkpoint_count,
        node_ids=job.node_ids,
        output_path=job.output_path,
        exit_code=job.exit_code,
    )
    if job.started_at:
        message.started_at.CopyFrom(time_message(job.started_at))
    if job.ended_at:
        message.ended_at.CopyFrom(time_message(job.ended_at))
    return message


def checkpoint_message(job: JobRecord, checkpoint: Checkpoint) -> jobs_pb2.Checkpoint:
    """A checkpoint of a job."""
    return jobs_pb2.Checkpoint(
        checkpoint_id=checkpoint.checkpoint_id,
        step=checkpoint.step,
        path=checkpoint_url(job, checkpoint),
        size_bytes=checkpoint.size_bytes,
        created_at=time_message(checkpoint.created_at),
    )


def node_status(node: NodeState) -> NodeStatus.ValueType:
    """Whether a node takes jobs."""
    if node.drain is None:
        return NodeStatus.NODE_STATUS_ONLINE
    if node.job_ids:
        return NodeStatus.NODE_STATUS_DRAINING
    return NodeStatus.NODE_STATUS_DRAINED


def node_message(
    node: NodeState, *, own_jobs: list[str], used: Mapping[int, GpuUse], now: int
) -> Node:
    """A node in full; `own_jobs` are those of the caller's tenant that run there.

    `used` is what is known of its GPUs' use, by index.
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
        drain_reason=node.drain or "",
        last_heartbeat=time_message(now),
    )
