"""What is told of those that wait is true: positions, waits and reasons."""

import re
from typing import Final

from app.coordinator.cluster.nodes import Cluster, NodeState
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.queue_rules import QueueOrder, Scope, total_gpus
from app.coordinator.jobs.states import WAITING, Status
from app.coordinator.scheduling.queues.line import FairPositions
from app.coordinator.scheduling.reasons import JobsReason
from app.coordinator.scheduling.verdicts import Reason
from scripts.adversary.attack import Attack
from scripts.adversary.looks import shares_of

#: A limit keeps a job waiting.
LIMITS: Final = frozenset({Reason.QUEUE_LIMIT, Reason.TENANT_LIMIT})
_LACKS: Final = re.compile(r"Waits for (.*) that other jobs hold: ")
_HOLDS: Final = re.compile(r"holds.* (\d+) of at most (\d+) (GPUs|running jobs)\.")


def check_positions(attack: Attack) -> None:
    """In each queue they are 1, 2, 3 and so on."""
    scheduler = attack.scheduler
    fair: dict[str, FairPositions] = {}
    told: dict[str, list[int]] = {}
    for job in scheduler.waiting:
        told.setdefault(job.queue_name, []).append(scheduler.position(job, fair))
    for name, positions in told.items():
        assert sorted(positions) == list(range(1, len(positions) + 1)), (name, positions)


def check_waits(attack: Attack) -> None:
    """Of jobs that are alike, the later one is not told to start earlier."""
    scheduler, rules = attack.scheduler, attack.world.rules
    forecast = scheduler.forecast()
    longest: dict[object, int] = {}
    for job in scheduler.waiting:
        if job.promise is not None:
            # It starts at its place, others before it or behind it.
            continue
        if job.status is not Status.QUEUED or rules.queue(job.queue_name).order is QueueOrder.FAIR:
            continue
        wait = scheduler.wait_of(job, forecast)
        alike = rules.account_of(job), job.resource_request, job.max_runtime, job.queue_name
        assert wait >= longest.get(alike, 0), f"{job.job_id} is told to start before older ones"
        longest[alike] = wait


def check_reasons(attack: Attack) -> None:
    """Each job that waits has a reason, which is so."""
    scheduler = attack.scheduler
    reasons = scheduler.reasons()
    for job in attack.scheduler.jobs.values():
        if job.status in WAITING:
            told = reasons.of(job)
            assert _is_true(attack, job, told), f"{job.job_id}: {told}"


def _is_true(attack: Attack, job: JobRecord, told: JobsReason) -> bool:
    request, cluster = job.resource_request, attack.cluster
    nodes = [node for node in cluster.nodes.values() if node.fits_empty(request)]
    able = [node for node in nodes if node.takes_jobs]
    if told.reason in (Reason.NOT_BEFORE, None):
        return told.reason is not None and job.status is Status.PENDING
    if told.reason in (Reason.DRAINED, Reason.IMPOSSIBLE):
        possible = len(nodes) >= request.nodes
        return len(able) < request.nodes and possible is (told.reason is Reason.DRAINED)
    if told.reason is Reason.BEHIND and "only the first" in told.message:
        return True
    if told.reason in LIMITS:
        return _is_limited(attack, job, told)
    if len(able) < request.nodes:
        return False
    if told.behind_job_id and not _is_behind(attack, job, told.behind_job_id):
        return False
    free = cluster.place(request) is not None
    if job.promise is not None:
        return told.reason is Reason.PREEMPTING
    if told.reason is Reason.RESERVED:
        promised = any(other.promise for other in attack.scheduler.jobs.values())
        return free and _has_others(attack, job) and ("promised" not in told.message or promised)
    if told.reason is Reason.RESOURCES:
        lacks = _LACKS.match(told.message)
        return not free and lacks is not None and _lacks(cluster, request, able, lacks[1])
    return told.reason in (Reason.BEHIND, Reason.PREEMPTING) and not free


def _is_behind(attack: Attack, job: JobRecord, name: str) -> bool:
    """Whether another job of the tenant waits that could use the same nodes."""
    other = attack.scheduler.jobs[name]
    return (
        other.status is Status.QUEUED
        and other.tenant_id == job.tenant_id
        and any(
            node.fits_empty(job.resource_request) and node.fits_empty(other.resource_request)
            for node in attack.cluster.nodes.values()
            if node.takes_jobs
        )
    )


def _has_others(attack: Attack, job: JobRecord) -> bool:
    return any(
        other.status is Status.QUEUED and other is not job
        for other in attack.scheduler.jobs.values()
    )


def _is_limited(attack: Attack, job: JobRecord, told: JobsReason) -> bool:
    holds = _HOLDS.search(told.message)
    if holds is None:
        return attack.world.rules.never(job) in told.message != ""
    held, most, what = int(holds[1]), int(holds[2]), holds[3]
    of_gpus = what == "GPUs"
    for limit in attack.world.rules.limits_of(job):
        if (limit.scope is Scope.QUEUE) is not (told.reason is Reason.QUEUE_LIMIT):
            continue
        own = [
            other
            for other in attack.scheduler.jobs.values()
            if shares_of(other) and limit.covers(other)
        ]
        gpus = sum(len(share.gpus) for other in own for share in shares_of(other))
        if (held, most) != (
            (gpus, limit.limits.gpus) if of_gpus else (len(own), limit.limits.jobs)
        ):
            continue
        more = total_gpus(job.resource_request) if of_gpus else 1
        if held + more > most or "head of it" in told.message:
            return True
    return False


def _lacks(cluster: Cluster, request: ResourceRequest, able: list[NodeState], lacking: str) -> bool:
    """Whether too few nodes have enough of each thing that a job is told to wait for."""
    free = {
        "GPUs": [node for node in able if len(node.free_gpus(request)) >= request.gpus],
        "cores": [node for node in able if node.taken_cpus + request.cpus <= node.spec.cpus],
        "memory": [node for node in able if node.taken_memory + request.memory <= node.spec.memory],
        "idle cores": [node for node in able if request.cpus or node.idlers < node.spec.cpus],
        "resources on one node": [],
    }
    return all(len(free[what]) < request.nodes for what in re.split(" and ", lacking))
