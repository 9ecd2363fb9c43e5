"""What holds at every moment: nobody has more than there is, or than a limit allows."""

from collections import Counter

from app.coordinator.cluster.nodes import suits
from app.coordinator.jobs.model import JobRecord, StopReason
from app.coordinator.jobs.queue_rules import Limits, total_gpus
from app.coordinator.jobs.states import HOLDING, TERMINAL, Status
from app.coordinator.scheduling.transitions import Transition
from scripts.adversary.attack import Attack


def check_capacity(attack: Attack) -> None:
    """Each job that holds something holds all that it asks for, and no node is used twice."""
    specs = {node_id: node.spec for node_id, node in attack.cluster.nodes.items()}
    gpus: Counter[tuple[str, int]] = Counter()
    cores: Counter[tuple[str, int]] = Counter()
    taken: Counter[tuple[str, str]] = Counter()
    for job in attack.scheduler.jobs.values():
        request = job.resource_request
        assert (job.status in HOLDING) == bool(job.placement), job
        if not job.placement:
            continue
        names = [share.node_id for share in job.placement]
        assert len(set(names)) == len(names) == request.nodes, "a gang is whole"
        for share in job.placement:
            spec = specs[share.node_id]
            assert len(share.gpus) == request.gpus
            assert all(suits(spec.gpus[index], request) for index in share.gpus)
            assert (share.cpus, share.memory) == (request.cpus, request.memory)
            assert not request.node_ids or spec.node_id in request.node_ids
            gpus.update((spec.node_id, index) for index in share.gpus)
            cores.update((spec.node_id, core) for core in share.cores)
            taken[spec.node_id, "cpus"] += share.cpus
            taken[spec.node_id, "memory"] += share.memory
            taken[spec.node_id, "idlers"] += not share.cpus
    for used in (gpus, cores):
        assert not [each for each, count in used.items() if count > 1], "used twice"
    for node_id, spec in specs.items():
        assert taken[node_id, "cpus"] <= spec.cpus
        assert taken[node_id, "memory"] <= spec.memory
        assert taken[node_id, "idlers"] <= spec.cpus


def check_limits(attack: Attack) -> None:
    """No limit of a queue, or of a tenant, is exceeded."""
    rules = attack.world.rules
    holding = [job for job in attack.scheduler.jobs.values() if job.placement or job.promise]
    for job in holding:
        queue, tenant = rules.queue(job.queue_name), rules.tenant(job.tenant_id)
        of_queue = [other for other in holding if other.queue_name == job.queue_name]
        own = [other for other in holding if other.tenant_id == job.tenant_id]
        _within(queue.limits, of_queue)
        _within(queue.tenant_limits, [other for other in of_queue if other in own])
        _within(tenant.limits, own)


def _within(limits: Limits, holding: list[JobRecord]) -> None:
    gpus = sum(total_gpus(job.resource_request) for job in holding)
    assert limits.gpus is None or gpus <= limits.gpus
    assert limits.jobs is None or len(holding) <= limits.jobs


def placed_in(step: Transition) -> list[JobRecord]:
    """The jobs that a step has placed, in that order."""
    newest = step.newest()
    placed = [job.job_id for job in step.changed if job.status is Status.SCHEDULING]
    return [newest[name] for name in dict.fromkeys(placed) if newest[name].placement]


def check_nodes(attack: Attack, step: Transition) -> None:
    """What takes no jobs is given none."""
    for job in placed_in(step):
        assert all(attack.cluster.nodes[share.node_id].takes_jobs for share in job.placement)


def victims_of(step: Transition) -> list[JobRecord]:
    """The jobs that a step has preempted."""
    return [
        job
        for job in step.newest().values()
        if job.stop_reason is StopReason.PREEMPT
        and (before := step.before[job.job_id]) is not None
        and before.stop_reason is not StopReason.PREEMPT
    ]


def check_nothing_is_left(attack: Attack) -> None:
    """Where nothing runs, nothing waits that could."""
    left = [
        job
        for job in attack.scheduler.jobs.values()
        if job.status not in TERMINAL and job.status is not Status.PAUSED
    ]
    assert not left, f"nothing runs, and these wait: {[job.job_id for job in left]}"
