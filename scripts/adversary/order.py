"""Who goes first, and where: order, fair shares, packing, topology, and nothing that stays idle."""

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import QueueOrder
from app.coordinator.scheduling.transitions import Transition
from scripts.adversary.answers import LIMITS
from scripts.adversary.attack import Attack
from scripts.adversary.delays import is_claimed
from scripts.adversary.looks import Look


def check_order(attack: Attack, step: Transition) -> None:
    """Of jobs that ask for the same, whoever comes first starts first; and where nobody is ahead,
    a job starts if it fits, where it leaves the most to others."""
    look = Look.of(attack, step)
    reasons = attack.scheduler.reasons()
    line: list[JobRecord] = []
    #: Those, and whoever waits for a limit, unless others ahead need what that leaves.
    unclaimed: list[JobRecord] = []
    for job in look.turns():
        placed = look.placed.get(job.job_id)
        if placed is None:
            claimed = is_claimed(attack, look, job, unclaimed)
            if not claimed:
                unclaimed.append(job)
            if claimed or reasons.of(job).reason in LIMITS:
                # Those ahead of it need what is left, or did so; or those behind it have what was.
                continue
            if not line and not (look.rules.limited and look.placed):
                # Else somebody may have been ahead whom a limit keeps waiting since.
                room = look.place(job.resource_request)
                assert room is None, f"{job.job_id} is first in line, and has room"
            line.append(job)
            continue
        for other in line:
            same = (other.resource_request, other.max_runtime) == (
                job.resource_request,
                job.max_runtime,
            )
            assert not same or not _comes_first(look, other, job), (
                f"{job.job_id} passes {other.job_id}, which asks for the same"
            )
        if not line and not look.rules.limited:
            _check_place(look, placed, attack.world.topology)


def _comes_first(look: Look, other: JobRecord, job: JobRecord) -> bool:
    """Whether another job has its turn first; those that are alike have it one after the other."""
    if look.rules.queue(other.queue_name).order is QueueOrder.FAIR:
        return look.turn_of(other) < look.turn_of(job) and other.tenant_id != job.tenant_id
    return look.turn_of(other) < look.turn_of(job)


def _check_place(look: Look, job: JobRecord, topology: str) -> None:
    request, cluster = job.resource_request, look.cluster
    able = [node for node in cluster.nodes.values() if look.fit(node, request) is not None]
    chosen = [cluster.nodes[share.node_id] for share in job.placement]
    if request.nodes == 1 and request.gpus:
        least = min(len(node.free_gpus(request)) for node in able)
        assert len(chosen[0].free_gpus(request)) == least, f"{job.job_id} breaks up a node"
    if request.nodes == 1 and not request.gpus:
        least = min(len(node.spec.gpus) - len(node.taken_gpus) for node in able)
        taken = len(chosen[0].spec.gpus) - len(chosen[0].taken_gpus)
        assert taken == least, f"{job.job_id} takes cores beside free GPUs"
    if request.nodes > 1 and topology:
        values = [node.spec.labels[topology] for node in able]
        if any(values.count(value) >= request.nodes for value in values):
            own = {node.spec.labels[topology] for node in chosen}
            assert len(own) == 1, f"{job.job_id} is spread over {own}"
