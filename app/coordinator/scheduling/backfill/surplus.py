"""What of a node nobody ahead can use.

A job for which no end is known takes a share for ever. It delays nobody if
whatever else could be on the node at once, of what runs there and of what waits
ahead, leaves that share free.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, NamedTuple, TypeAlias

from app.coordinator.cluster.nodes import NodeState, suits
from app.coordinator.jobs.model import Allocation, ResourceRequest

#: Sums are told apart up to this many units; beyond, all are taken to be possible.
_MOST_UNITS: Final = 4096


class Ahead(NamedTuple):
    """Jobs ahead that could run on a node: what each asks of it, and how many there are."""

    resource_request: ResourceRequest
    jobs: int


@dataclass(frozen=True, slots=True)
class Unseen:
    """Jobs ahead that were not looked at, of which only their kind is known."""

    idle: bool = False
    cores: bool = False
    gpus: bool = False
    #: The most cores and bytes that they ask for with each GPU.
    densest: tuple[float, float] = (0.0, 0.0)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self.idle or self.cores or self.gpus

    def may_use(self, resource_request: ResourceRequest) -> bool:
        """Whether they may ask for all that there is of something that is asked for."""
        return bool(
            (self.gpus and resource_request.gpus)
            or (self.cores if resource_request.cpus else self.idle)
            or (resource_request.memory and (self.cores or self.idle))
        )


NOTHING_UNSEEN: Final = Unseen()


#: What one job on the node has or would have of a resource, the GPUs that it has at the same time,
#: and how many such jobs could run at once, but for what they share.
_Need: TypeAlias = tuple[int, int, int]


def leaves_room(
    node: NodeState,
    held: Sequence[Allocation],
    resource_request: ResourceRequest,
    ahead: Sequence[Ahead],
    unseen: Unseen = NOTHING_UNSEEN,
    *,
    gpus: Collection[int] = (),
) -> bool:
    """Whether a share of a node could be taken for ever without keeping anybody ahead from it.

    `held` is what jobs hold of the node now. All are ahead that could use it. `gpus` are those of
    the share: which ones they are counts where the node has several kinds.
    """
    spec = node.spec
    if resource_request.gpus and (
        unseen.gpus
        or not (
            (gpus and usable_gpus(node, ahead).isdisjoint(gpus))
            or (
                _leaves_gpus(node, held, resource_request, ahead)
                and _leaves_kinds(node, held, gpus, ahead)
            )
        )
    ):
        return False
    cores, memory = unseen.densest if unseen.gpus else (0.0, 0.0)
    most = len(spec.gpus)
    if resource_request.cpus:
        needs = [
            *((share.cpus, len(share.gpus), 1) for share in held if share.cpus),
            *((each.cpus, each.gpus, jobs) for each, jobs in ahead if each.cpus),
        ]
        if unseen.cores or not _leaves(
            needs, resource_request.cpus, spec.cpus, most, density=cores
        ):
            return False
    else:
        needs = [
            *((1, len(share.gpus), 1) for share in held if not share.cpus),
            *((1, each.gpus, jobs) for each, jobs in ahead if not each.cpus),
        ]
        if unseen.idle or not _leaves(needs, 1, spec.cpus, most, density=float(unseen.gpus)):
            return False
    if not resource_request.memory:
        return True
    needs = [
        *((share.memory, len(share.gpus), 1) for share in held if share.memory),
        *((each.memory, each.gpus, jobs) for each, jobs in ahead if each.memory),
    ]
    if unseen.cores or unseen.idle:
        return False
    return _leaves(needs, resource_request.memory, spec.memory, most, density=memory)


def usable_gpus(node: NodeState, ahead: Iterable[Ahead]) -> frozenset[int]:
    """The GPUs of a node that any of those ahead could use."""
    gpus = node.spec.gpus
    return frozenset(
        index
        for each, _ in ahead
        if each.gpus
        for index, gpu in enumerate(gpus)
        if suits(gpu, each)
    )


def _leaves_kinds(
    node: NodeState, held: Sequence[Allocation], gpus: Collection[int], ahead: Sequence[Ahead]
) -> bool:
    """Whether those ahead that ask for some kinds have enough of them beside these GPUs."""
    kinds = node.spec.gpus
    if len(set(kinds)) == 1:
        return True
    for request in {each for each, _ in ahead if each.gpus}:
        pool = {index for index, gpu in enumerate(kinds) if suits(gpu, request)}
        if not (taken := len(pool.intersection(gpus))):
            continue
        sizes = [len(pool.intersection(share.gpus)) for share in held]
        for each, jobs in ahead:
            if each.gpus and any(suits(kinds[index], each) for index in pool):
                sizes += [1] * min(jobs * each.gpus, len(pool))
        if can_fill(sizes, taken, len(pool)):
            return False
    return True


def _leaves_gpus(
    node: NodeState,
    held: Sequence[Allocation],
    resource_request: ResourceRequest,
    ahead: Sequence[Ahead],
) -> bool:
    gpus = node.spec.gpus
    pool = {index for index, gpu in enumerate(gpus) if suits(gpu, resource_request)}
    alike = len(pool) == len(gpus) and len(set(gpus)) == 1
    most = len(pool)
    sizes = [len(pool.intersection(share.gpus)) for share in held]
    for each, jobs in ahead:
        if each.gpus and any(suits(gpus[index], each) for index in pool):
            # Where GPUs differ, a job may have some of these and some others.
            size = each.gpus if alike else 1
            sizes += [size] * min(jobs * each.gpus // size, most // size)
    return not can_fill(sizes, resource_request.gpus, most)


def _leaves(
    needs: Iterable[_Need], amount: int, capacity: int, gpus: int, *, density: float
) -> bool:
    """Whether `amount` of a resource is left by all that could be on the node at once.

    Those with GPUs are never more than the node's GPUs allow; `density` is what
    others of them may have for each GPU.
    """
    sizes: list[int] = []
    with_gpus = without = 0
    densest = density
    for each, own_gpus, jobs in needs:
        most = min(jobs, capacity // each + 1)
        if own_gpus:
            most = min(most, gpus // own_gpus)
            with_gpus += each * most
            densest = max(densest, each / own_gpus)
        else:
            without += each * most
        sizes += [each] * most
    by_gpus = ceil(densest * gpus)
    with_gpus = by_gpus if density else min(with_gpus, by_gpus)
    if with_gpus + without + amount <= capacity:
        return True
    return not density and not can_fill(sizes, amount, capacity)


def can_fill(sizes: Iterable[int], amount: int, capacity: int) -> bool:
    """Whether some of `sizes` fit together, but not with `amount` beside them."""
    if capacity > _MOST_UNITS:
        return True
    reachable = 1
    mask = (1 << (capacity + 1)) - 1
    enough = 1 << max(capacity - amount + 1, 0)
    for size in sizes:
        if reachable >= enough:
            return True
        reachable |= (reachable << size) & mask
    return reachable >= enough
