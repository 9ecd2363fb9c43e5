"""What a submission asks of the cluster, and whether the cluster could ever give it."""

from dataclasses import replace
from typing import Final

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.errors import FailedPrecondition, all_problems
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.queue_rules import LONGEST_RUN, SchedulingRules
from generated.mindcoordinator.v1.jobs_pb2 import (
    ResourceConfig,
    SchedulingConfig,
    SubmitJobRequest,
)

_GIB: Final = 1024**3
#: What may be asked for at most: more than there is, and so little that sums of what is
#: placed stay within 64 bits.
_MOST: Final = {
    "gpu_count": 1_000_000,
    "cpu_count": 1_000_000,
    "memory_bytes": 2**60,
    "gpu_memory_bytes": 2**60,
    "node_count": 10_000,
}
_SECOND: Final = 1_000_000


def check_times(scheduling: SchedulingConfig, *, now: int) -> None:
    """Raise InvalidArgument unless the times can be counted with; `now` is in microseconds."""
    with all_problems() as problems:
        if not 0 <= scheduling.max_runtime_seconds <= LONGEST_RUN:
            problems.add(
                "scheduling_config.max_runtime_seconds",
                f"must be from 0 to {LONGEST_RUN}; 0 sets no limit",
            )
        start = scheduling.not_before
        if not 0 <= start.nanos < 1_000_000_000 or not (
            0 <= start.seconds <= now // _SECOND + LONGEST_RUN
        ):
            problems.add(
                "scheduling_config.not_before", "must be a time from 1970 to ten years from now"
            )


def bound_run_time(scheduling: SchedulingConfig) -> None:
    """Bring what an earlier version accepted as `max_runtime_seconds` within its bounds."""
    scheduling.max_runtime_seconds = min(max(scheduling.max_runtime_seconds, 0), LONGEST_RUN)


def with_run_time(job: JobRecord, rules: SchedulingRules) -> JobRecord:
    """A new job with the longest run of its queue's rules, if it sets none itself and runs."""
    seconds = rules.queue(job.queue_name).max_runtime
    if job.max_runtime or job.artefacts_of or not seconds:
        return job
    kept = SubmitJobRequest()
    kept.CopyFrom(job.submission)
    kept.scheduling_config.max_runtime_seconds = seconds
    return replace(job, submission=kept)


def run_time_warning(job: JobRecord, asked: SchedulingConfig) -> tuple[str, ...]:
    """What is told of a limit that a job has though it asked for none."""
    if asked.max_runtime_seconds or not job.max_runtime:
        return ()
    return (
        f"scheduling_config.max_runtime_seconds: {job.max_runtime // _SECOND}, since queue"
        f" {job.queue_name} has that for jobs that set none.",
    )


def resource_request_of(resources: ResourceConfig, scheduling: SchedulingConfig) -> ResourceRequest:
    """What is asked of each node; what is 0 is not asked for. Raises InvalidArgument."""
    nodes = resources.node_count or 1
    amounts = {
        "gpu_count": resources.gpu_count,
        "cpu_count": resources.cpu_count,
        "memory_bytes": resources.memory_bytes,
        "gpu_memory_bytes": resources.gpu_memory_bytes,
        "node_count": nodes,
    }
    with all_problems() as problems:
        for name, amount in amounts.items():
            most = _MOST[name]
            if not 0 <= amount <= most:
                problems.add(f"resource_config.{name}", f"must be from 0 to {most}")
            elif name in ("gpu_count", "cpu_count") and amount % nodes:
                problems.add(
                    f"resource_config.{name}",
                    f"{amount} cannot be divided evenly among {nodes} nodes",
                )
    return ResourceRequest(
        nodes=nodes,
        gpus=resources.gpu_count // nodes,
        gpu_type=resources.gpu_type if resources.gpu_count else "",
        gpu_memory=resources.gpu_memory_bytes if resources.gpu_count else 0,
        cpus=resources.cpu_count // nodes,
        memory=-(-resources.memory_bytes // nodes),
        node_ids=tuple(scheduling.node_ids),
        selector=tuple(sorted(scheduling.node_selector.items())),
    )


def check_possible(resource_request: ResourceRequest, cluster: Cluster) -> None:
    """Raise FailedPrecondition if the whole cluster, empty, could not give what is asked."""
    if cluster.satisfiable(resource_request):
        return
    wanted = f"{resource_request.gpus} GPUs" + (
        f" of type {resource_request.gpu_type}" if resource_request.gpu_type else ""
    )
    if resource_request.gpu_memory:
        wanted += f" with {resource_request.gpu_memory / _GIB:.1f} GiB each"
    if resource_request.cpus:
        wanted += f", {resource_request.cpus} cores"
    if resource_request.memory:
        wanted += f", {resource_request.memory / _GIB:.1f} GiB"
    chosen = f", among {', '.join(resource_request.node_ids)}" if resource_request.node_ids else ""
    if resource_request.selector:
        labels = ", ".join(f"{key}={value}" for key, value in resource_request.selector)
        chosen += f", labelled {labels}"
    there = "; ".join(_inventory(cluster))
    raise FailedPrecondition(
        f"resource_config: no node can satisfy the request for {resource_request.nodes} node(s)"
        f" with {wanted} each{chosen}. Available: {there}"
    )


def _inventory(cluster: Cluster) -> list[str]:
    lines = []
    for node in tuple(cluster.nodes.values()):
        spec = node.spec
        types = sorted({gpu.type for gpu in spec.gpus})
        gpus = f"{len(spec.gpus)}x {'/'.join(types)}" if types else "no GPUs"
        lines.append(f"{spec.node_id} ({gpus}, {spec.cpus} cores, {spec.memory / _GIB:.1f} GiB)")
    return lines
