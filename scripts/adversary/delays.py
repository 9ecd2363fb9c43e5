"""Who passes others delays none of them: by brute force over a plan, and over all that could be on
a node together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from random import Random
from typing import Final, NamedTuple

from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import suits
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest
from app.coordinator.scheduling.backfill.ahead import RESERVED
from app.coordinator.scheduling.backfill.timeline import end_of
from app.coordinator.scheduling.placement import MOST_LOOKS
from app.coordinator.scheduling.queues.candidates import lane_of
from app.coordinator.scheduling.transitions import Transition
from scripts.adversary.answers import LIMITS
from scripts.adversary.attack import Attack
from scripts.adversary.capacity import placed_in, victims_of
from scripts.adversary.looks import Look, shares_of

_FOREVER: Final = 2**63
_MOST_REFUSED: Final = 3
#: Sets of jobs that are tried on a node.
_TRIES: Final = 40


class Need(NamedTuple):
    """What one job has, or would have, of one node."""

    cpus: int
    memory: int
    gpus: int
    #: The kinds of GPUs that will do.
    kinds: frozenset[GpuSpec]


def fits(spec: NodeSpec, needs: Iterable[Need]) -> bool:
    """Whether jobs fit on an empty node together, whichever GPUs each of them has."""
    needs = list(needs)
    if (
        sum(need.cpus for need in needs) > spec.cpus
        or sum(need.memory for need in needs) > spec.memory
        or sum(not need.cpus for need in needs) > spec.cpus
    ):
        return False
    kinds = set(spec.gpus)
    subsets = chain.from_iterable(combinations(kinds, n) for n in range(len(kinds) + 1))
    # Hall's condition.
    return all(
        sum(need.gpus for need in needs if need.kinds <= set(subset))
        <= sum(gpu in subset for gpu in spec.gpus)
        for subset in subsets
    )


def need_of(request: ResourceRequest, spec: NodeSpec) -> Need:
    """What a job that waits would have of a node."""
    kinds = frozenset(gpu for gpu in spec.gpus if suits(gpu, request)) if request.gpus else ()
    return Need(request.cpus, request.memory, request.gpus, frozenset(kinds))


@dataclass
class _Span:
    """A share that is held for a time, or reserved."""

    need: Need
    start: int
    end: int


@dataclass
class Plan:
    """When those ahead start if every run takes until its limit."""

    look: Look
    spans: dict[str, list[_Span]]
    known: set[str] = field(default_factory=set)
    unknown: set[object] = field(default_factory=set)
    reserved: int = 0
    starts: dict[object, int] = field(default_factory=dict)

    def reserve(self, job: JobRecord) -> None:
        """Plan one job behind those before it."""
        alike = self.look.alike_of(job)
        if self.reserved >= RESERVED or alike in self.unknown:
            return
        self.reserved += 1
        request, length = job.resource_request, job.max_runtime or _FOREVER
        usable = self.look.usable(job)
        moments = {0, *(span.end for name in usable for span in self.spans[name])}
        for moment in sorted(moments - {_FOREVER}):
            if moment < self.starts.get(alike, 0):
                continue
            able = [name for name in usable if self.has_room(name, request, moment, length)]
            if len(able) >= request.nodes:
                found = self.look.cluster.place(
                    request,
                    among=able,
                    fit=lambda node: Allocation(
                        node.spec.node_id, (), request.cpus, request.memory
                    ),
                )
                assert found is not None
                for share in found:
                    need = need_of(request, self.look.cluster.nodes[share.node_id].spec)
                    end = min(moment + length, _FOREVER)
                    self.spans[share.node_id].append(_Span(need, moment, end))
                self.known.add(job.job_id)
                self.starts[alike] = moment
                return
        self.unknown.add(alike)

    def has_room(self, name: str, request: ResourceRequest, moment: int, length: int) -> bool:
        """Whether a node has room for a request from a moment on, for so long."""
        spec, spans = self.look.cluster.nodes[name].spec, self.spans[name]
        more = need_of(request, spec)
        end = moment + length
        points = {moment, *(span.start for span in spans if moment < span.start < end)}
        return all(
            fits(spec, [more, *(each.need for each in spans if each.start <= at < each.end)])
            for at in points
        )


def check_delays(attack: Attack, step: Transition) -> None:
    """Each job that was placed past others delays none of them."""
    if not placed_in(step) or victims_of(step):
        return
    look = Look.of(attack, step)
    if len(look.placed) > 1 and (look.rules.limited or look.rules.queues):
        # What is placed may have others come later who were ahead; then all are looked at again.
        return
    if any(len(set(spec.gpus)) > 1 for spec in attack.world.nodes):
        return
    reasons = attack.scheduler.reasons()
    plan: Plan | None = None
    looks: dict[int, int] = {}
    refused: dict[int, int] = {}
    line: list[JobRecord] = []
    kinds: set[object] = set()
    #: How many of those that are alike come before one.
    numbers: dict[str, int] = {}
    for job in look.turns():
        request = job.resource_request
        lane = lane_of(request)
        own = look.turn_of(job)
        ahead = sorted(
            (other for other in line if look.turn_of(other, after=numbers[other.job_id]) < own),
            key=lambda other: look.turn_of(other, after=numbers[other.job_id]),
        )
        alike = look.alike_of(job)
        room = look.place(request) is not None
        if job.job_id not in look.placed and alike in kinds:
            numbers[job.job_id] = sum(look.alike_of(other) == alike for other in line)
            line.append(job)
            continue
        if look.rules.limited and job.max_runtime and job.job_id in look.placed:
            # Limits are in the plan, too.
            continue
        if room and job.max_runtime and ahead and not look.rules.limited:
            plan = plan or _plan_of(attack, look)
            for other in ahead:
                if other.job_id not in plan.known:
                    plan.reserve(other)
        if job.job_id in look.placed:
            if ahead:
                _check(attack.choose, look, plan, look.placed[job.job_id], ahead)
            if plan is not None:
                _hold(look, plan, look.placed[job.job_id])
            continue
        if reasons.of(job).reason in LIMITS:
            continue
        numbers[job.job_id] = 0
        line.append(job)
        kinds.add(alike)
        looks[lane] = looks.get(lane, 0) + 1
        refused[lane] = refused.get(lane, 0) + room
        if looks[lane] >= MOST_LOOKS or refused[lane] >= _MOST_REFUSED:
            return


def _plan_of(attack: Attack, look: Look) -> Plan:
    plan = Plan(look, {name: [] for name in look.cluster.nodes})
    for job in look.held.values():
        began = job.run_began.micros if job.run_began else attack.now
        _hold(look, plan, job, ran=attack.now - began)
    return plan


def _hold(look: Look, plan: Plan, job: JobRecord, *, ran: int = 0) -> None:
    start, end = 0, end_of(job, ran=ran)
    if job.promise is not None:
        # From when what is being stopped has ended.
        start, end = 1, min(1 + (job.max_runtime or _FOREVER), _FOREVER)
    for share in shares_of(job):
        spec = look.cluster.nodes[share.node_id].spec
        need = need_of(job.resource_request, spec)
        plan.spans[share.node_id].append(_Span(need, start, end))


def _check(
    choose: Random,
    look: Look,
    plan: Plan | None,
    job: JobRecord,
    ahead: Sequence[JobRecord],
) -> None:
    """Check one job that was placed, which the look does not count as held yet."""
    request, length = job.resource_request, job.max_runtime or _FOREVER
    known = plan.known if plan is not None and job.max_runtime else set[str]()
    rest = [other for other in ahead if other.job_id not in known]
    for share in job.placement:
        name = share.node_id
        if known and plan is not None:
            assert plan.has_room(name, request, 0, length), (
                f"{job.job_id} on {name} is in the way of the plan of those ahead"
            )
        spec = look.cluster.nodes[name].spec
        here = [
            [need_of(other.resource_request, spec)] for other in rest if name in look.usable(other)
        ]
        if not here:
            continue
        held = [
            [need_of(other.resource_request, spec)]
            for other in look.held.values()
            for own in shares_of(other)
            if own.node_id == name
        ]
        more = need_of(request, spec)
        for _ in range(_TRIES):
            found: list[Need] = []
            for needs in choose.sample([*held, *here], len(held) + len(here)):
                if fits(spec, [*found, *needs]):
                    found += needs
            assert fits(spec, [*found, more]), f"{job.job_id} on {name} keeps others from it"
