"""Why a job waits, in words for its owner."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.coordinator.cluster.nodes import Cluster, NodeState
from app.coordinator.jobs.messages import time_message
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.queue_rules import Scope, total_gpus
from app.coordinator.jobs.states import Status
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.queues.candidates import lane_of
from app.coordinator.scheduling.queues.usage import Excess
from app.coordinator.scheduling.verdicts import Reason, Verdict, Verdicts
from app.shortening import shortened
from generated.mindcoordinator.v1.queue_pb2 import WaitReason

_GIB: Final = 1024**3
#: Characters of the nodes' names that are listed.
_MAX_NAMES: Final = 200


@dataclass(frozen=True, slots=True)
class JobsReason:
    """Why one job waits. It names no job of another tenant."""

    #: None if nothing keeps it from starting any more.
    reason: Reason | None
    message: str
    #: The job that it waits behind, if that is the same tenant's; else empty.
    behind_job_id: str = ""

    @property
    def number(self) -> WaitReason.ValueType:
        """The reason as the contract has it."""
        return WaitReason.ValueType(self.reason.value if self.reason else 0)


class WaitReasons:
    """The reasons of all jobs that wait, as of one look."""

    def __init__(self, table: JobTable, verdicts: Verdicts) -> None:
        self._table = table
        self._verdicts = verdicts

    def of(self, job: JobRecord) -> JobsReason:
        """Why a job waits, which did when it was looked at."""
        if job.status is Status.PENDING:
            time = time_message(job.not_before).ToJsonString()
            return JobsReason(Reason.NOT_BEFORE, f"Waits for its not_before, {time}.")
        if job.promise is not None:
            promised = Verdict(job, Reason.PREEMPTING)
            message = _message(self._table.cluster, job, promised, own=False)
            return JobsReason(Reason.PREEMPTING, message)
        alike = self._table.candidates.alike_of(job)
        if self._table.candidates.is_parked(alike):
            if len(self._table.cluster.usable(job.resource_request)) >= job.resource_request.nodes:
                return self._never(job)
            possible = self._table.cluster.has(job.resource_request)
            parked = Verdict(job, Reason.DRAINED if possible else Reason.IMPOSSIBLE)
            return JobsReason(parked.reason, _message(self._table.cluster, job, parked, own=False))
        verdict = self._verdicts.of(job, alike, lane_of(job.resource_request))
        if verdict is None:
            return JobsReason(None, "Is about to be placed.")
        behind = verdict.behind
        own = behind is not None and behind.tenant_id == job.tenant_id
        message = _message(self._table.cluster, job, verdict, own=own)
        return JobsReason(
            verdict.reason, message, behind.job_id if behind is not None and own else ""
        )

    def _never(self, job: JobRecord) -> JobsReason:
        """Why a job waits that was there before its limit."""
        of_queue = self._table.rules.queue(job.queue_name).limits.never(job.resource_request)
        return JobsReason(
            Reason.QUEUE_LIMIT if of_queue else Reason.TENANT_LIMIT,
            f"It can never start: {self._table.rules.never(job)}.",
        )


def _message(cluster: Cluster, job: JobRecord, verdict: Verdict, *, own: bool) -> str:
    request = job.resource_request
    if verdict.excess is not None:
        return _limit(job, verdict.excess)
    behind = "a job of another tenant" if verdict.behind is not None else "a job"
    if own and verdict.behind is not None:
        behind = f"job {verdict.behind.job_id}"
    match verdict.reason:
        case Reason.DRAINED:
            closed = closed_nodes(cluster, request)
            return f"Only nodes that take no jobs have what it asks for: {closed}."
        case Reason.IMPOSSIBLE:
            if cluster.growing:
                return (
                    f"No node has what it asks for yet: {described(request)}. The cluster is asked"
                    " to grow."
                )
            return f"The cluster no longer has what it asks for: {described(request)}."
        case Reason.PREEMPTING:
            return "Runs are being stopped whose end makes room for it."
        case Reason.RESERVED if verdict.promised:
            return (
                f"What it asks for is free, but promised to {behind}, for which runs are being"
                " stopped."
            )
        case Reason.RESERVED:
            hint = (
                "its max_runtime_seconds would end it too late"
                if job.max_runtime
                else "without max_runtime_seconds it could hold it for ever"
            )
            return f"What it asks for is free, but {behind} ahead of it needs it, and {hint}."
        case Reason.BEHIND if verdict.unseen:
            return (
                f"Waits behind {behind} and others of its kind, of which only the first are"
                " looked at."
            )
        case Reason.BEHIND:
            return f"Waits behind {behind} for the same nodes: {described(request)}."
        case _:
            return (
                f"Waits for {_lacking(cluster, request)} that other jobs hold: it asks for"
                f" {described(request)}."
            )


def described(request: ResourceRequest) -> str:
    """What is asked for, in words."""
    parts = []
    if request.gpus:
        kind = f" of type {request.gpu_type}" if request.gpu_type else ""
        parts.append(_counted(request.gpus, "GPU") + kind)
    if request.cpus:
        parts.append(_counted(request.cpus, "core"))
    if request.memory:
        parts.append(f"{request.memory / _GIB:.1f} GiB of memory")
    what = " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]])) or "an idle core"
    where = "a node" if request.nodes == 1 else f"each of {request.nodes} nodes"
    if request.node_ids:
        where += f" among {shortened(', '.join(request.node_ids), _MAX_NAMES)}"
    if request.selector:
        labels = ", ".join(f"{key}={value}" for key, value in request.selector)
        where += f" labelled {shortened(labels, _MAX_NAMES)}"
    return f"{what} on {where}"


def _lacking(cluster: Cluster, request: ResourceRequest) -> str:
    """The resources of which too few nodes have enough free."""
    able = [node for node in cluster.nodes.values() if node.takes_jobs and node.fits_empty(request)]
    has: dict[str, Callable[[NodeState], bool]] = {
        "GPUs": lambda node: len(node.free_gpus(request)) >= request.gpus,
        "cores": lambda node: node.taken_cpus + request.cpus <= node.spec.cpus,
        "memory": lambda node: node.taken_memory + request.memory <= node.spec.memory,
        "idle cores": lambda node: bool(request.cpus) or node.idlers < node.spec.cpus,
    }
    lacking = [name for name, enough in has.items() if sum(map(enough, able)) < request.nodes]
    return " and ".join(lacking) or "resources on one node"


def closed_nodes(cluster: Cluster, request: ResourceRequest) -> str:
    """The nodes that would have what is asked for and take no jobs, each with the reason."""
    names = sorted(
        f"{node.spec.node_id} ({'not available' if node.problem else 'drained'})"
        for node in cluster.nodes.values()
        if not node.takes_jobs and node.fits_empty(request)
    )
    return shortened(", ".join(names), _MAX_NAMES)


def _limit(job: JobRecord, excess: Excess) -> str:
    whose = {
        Scope.QUEUE: f"Queue {job.queue_name} holds",
        Scope.TENANT_IN_QUEUE: f"The tenant holds in queue {job.queue_name}",
        Scope.TENANT: "The tenant holds",
    }[excess.scope]
    if excess.of_gpus:
        text = f"{whose} {excess.held.gpus} of at most {excess.limits.gpus} GPUs."
    else:
        text = f"{whose} {excess.held.jobs} of at most {excess.limits.jobs} running jobs."
    if excess.of_ahead:
        return f"{text} Jobs ahead of it need what is left."
    if excess.of_gpus and (
        excess.held.gpus + total_gpus(job.resource_request) <= (excess.limits.gpus or 0)
    ):
        return f"{text} A job ahead of it asks for more than is left."
    return text


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
