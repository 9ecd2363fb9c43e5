"""Made-up clusters, rules and jobs. All follows from a seed."""

from dataclasses import dataclass
from random import Random
from typing import Final

from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.queue_rules import (
    Limits,
    QueueOrder,
    QueueRules,
    SchedulingRules,
    TenantRules,
)
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

GIB: Final = 1 << 30
SECOND: Final = 1_000_000
QUEUES: Final = ("default", "night", "q1", "q2")
TENANTS: Final = ("a", "b", "c")
_KINDS: Final = (GpuSpec("A", 40 * GIB), GpuSpec("A", 80 * GIB), GpuSpec("B", 80 * GIB))


@dataclass(frozen=True, slots=True)
class World:
    """What does not change while the attack goes on."""

    nodes: tuple[NodeSpec, ...]
    rules: SchedulingRules
    topology: str
    #: How often jobs set a limit, and how many different requests there are.
    limited: float
    requests: tuple[ResourceRequest, ...]
    priorities: int


def world_of(choose: Random) -> World:
    """A small cluster: brute force has to get through it."""
    mixed = choose.random() < 0.3
    nodes = tuple(_node(choose, number, mixed=mixed) for number in range(choose.randint(1, 5)))
    return World(
        nodes=nodes,
        rules=choose.choice([_no_rules, _orders, _limits, _limits])(choose),
        topology=choose.choice(["", "rack"]),
        limited=choose.choice([0.0, 0.5, 0.8, 1.0]),
        requests=tuple(_request(choose, nodes) for _ in range(choose.choice([3, 6, 12, 40]))),
        priorities=choose.choice([1, 2, 4]),
    )


def _node(choose: Random, number: int, *, mixed: bool) -> NodeSpec:
    count = choose.choice([0, 2, 4, 4, 8])
    kind = choose.choice(_KINDS)
    gpus = tuple(choose.choice(_KINDS) if mixed else kind for _ in range(count))
    name = f"n{number}"
    return NodeSpec(
        name,
        name,
        choose.choice([2, 4, 8]),
        choose.choice([8, 16]) * GIB,
        gpus,
        labels={"rack": f"r{number % 2}"},
    )


def _request(choose: Random, nodes: tuple[NodeSpec, ...]) -> ResourceRequest:
    gpus = choose.choice([0, 0, 1, 1, 2, 3, 4, 8])
    return ResourceRequest(
        nodes=choose.choice([1, 1, 1, 2, 3]),
        gpus=gpus,
        gpu_type=choose.choice(["", "", "A", "B"]) if gpus else "",
        gpu_memory=choose.choice([0, 0, 0, 80 * GIB]) if gpus else 0,
        cpus=choose.choice([0, 0, 1, 2, 4]),
        memory=choose.choice([0, 0, 1, 4]) * GIB,
        node_ids=(choose.choice(nodes).node_id,) if choose.random() < 0.1 else (),
    )


def _no_rules(_: Random) -> SchedulingRules:
    return SchedulingRules()


def _orders(choose: Random) -> SchedulingRules:
    return SchedulingRules(
        {name: QueueRules(choose.choice(list(QueueOrder))) for name in QUEUES[:2]},
        {name: TenantRules(shares=choose.randint(1, 3)) for name in TENANTS[:2]},
    )


def _limits(choose: Random) -> SchedulingRules:
    def limits() -> Limits:
        return Limits(
            gpus=choose.choice([None, None, 2, 4, 8]), jobs=choose.choice([None, None, 1, 2, 4])
        )

    return SchedulingRules(
        {
            name: QueueRules(choose.choice(list(QueueOrder)), limits(), limits())
            for name in choose.sample([*QUEUES, "*"], 3)
        },
        {
            name: TenantRules(limits(), choose.randint(1, 3))
            for name in choose.sample([*TENANTS, "*"], 2)
        },
    )


def job_of(choose: Random, world: World, number: int, now: int) -> JobRecord:
    """A job that is new."""
    submission = SubmitJobRequest(name="job")
    scheduling = submission.scheduling_config
    if choose.random() < world.limited:
        scheduling.max_runtime_seconds = choose.choice([5, 10, 30, 100])
    scheduling.preemptible = choose.random() < 0.5
    submission.training_config.max_retries = choose.choice([0, 1])
    return JobRecord(
        job_id=f"j{number:04}",
        tenant_id=choose.choice(TENANTS),
        user_id="u",
        name="job",
        submission=submission,
        resource_request=choose.choice(world.requests),
        created_at=now,
        updated_at=now,
        priority=choose.randrange(world.priorities) * 2,
        queue_name=choose.choice(QUEUES),
        not_before=now + choose.randint(1, 20) * SECOND if choose.random() < 0.05 else 0,
    )
