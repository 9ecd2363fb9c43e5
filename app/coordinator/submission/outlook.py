"""What is told of a submission that is only checked: what it would wait for, and what looks odd."""

from typing import Final

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.messages import time_message
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.reasons import closed_nodes
from app.coordinator.scheduling.rehearsal import Rehearsal
from app.coordinator.scheduling.verdicts import Reason
from app.shortening import shortened
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

#: Characters of the nodes' names that are listed.
_MAX_NAMES = 200
#: Reasons of which the scheduler's sentence says it all.
_TOLD: Final = frozenset({Reason.QUEUE_LIMIT, Reason.TENANT_LIMIT, Reason.RESERVED})


def waiting_for(rehearsal: Rehearsal, cluster: Cluster) -> str:
    """What a job would wait for, in a sentence; empty if it would start at once."""
    job = rehearsal.job
    if rehearsal.starts:
        return ""
    if job.status is Status.PENDING:
        return f"Its not_before: {time_message(job.not_before).ToJsonString()}."
    if rehearsal.reason is not None and rehearsal.reason.reason in _TOLD:
        return rehearsal.reason.message
    request = job.resource_request
    if not cluster.has(request):
        return "Nodes that the cluster does not have yet."
    able = [node for node in cluster.nodes.values() if node.fits_empty(request)]
    if sum(node.takes_jobs for node in able) < request.nodes:
        return f"Nodes that take no jobs: {closed_nodes(cluster, request)}."
    if rehearsal.preempted:
        return f"{_counted(rehearsal.preempted, 'job')} with a lower priority to be stopped for it."
    if rehearsal.ahead:
        return f"Resources, behind {_counted(rehearsal.ahead, 'job')} in the queue."
    return "Resources that other jobs hold."


def warnings_of(request: SubmitJobRequest, cluster: Cluster, *, now: int) -> list[str]:
    """What is allowed in a submission but probably not meant; each begins with the field.

    `now` is in microseconds since 1970.
    """
    resources, scheduling = request.resource_config, request.scheduling_config
    found = [
        f"resource_config.{name}: has no effect without gpu_count."
        for name in ("gpu_type", "gpu_memory_bytes")
        if getattr(resources, name) and not resources.gpu_count
    ]
    unknown = [name for name in scheduling.node_ids if name not in cluster.nodes]
    if unknown:
        names = shortened(", ".join(unknown), _MAX_NAMES)
        found.append(f"scheduling_config.node_ids: these are not nodes: {names}.")
    if scheduling.HasField("not_before") and scheduling.not_before.ToMicroseconds() <= now:
        found.append("scheduling_config.not_before: has passed; the job does not wait for it.")
    if request.data_config.validation_split == 1:
        found.append("data_config.validation_split: leaves no records for training.")
    if request.output_config.model_name and not request.output_config.register_model:
        found.append("output_config.model_name: has no effect without register_model.")
    return found


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
