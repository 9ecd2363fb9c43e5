"""When those ahead start if every run takes until its limit: by brute force."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import Final, NamedTuple

from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import suits
from app.coordinator.jobs.model import Allocation, JobRecord, ResourceRequest
from app.coordinator.jobs.queue_rules import Account, Limit, Limits, total_gpus
from app.coordinator.scheduling.backfill.ahead import RESERVED
from app.coordinator.scheduling.backfill.timeline import end_of
from scripts.adversary.attack import Attack
from scripts.adversary.looks import Look, shares_of

FOREVER: Final = 2**63


class Need(NamedTuple):
    """What one job has, or would have, of one node."""

    cpus: int
    memory: int
    idlers: int
    gpus: int
    #: The kinds of GPUs that will do.
    kinds: frozenset[GpuSpec]


def fits(spec: NodeSpec, needs: Iterable[Need]) -> bool:
    """Whether jobs fit on an empty node together, whichever GPUs each of them has."""
    needs = list(needs)
    if (
        sum(need.cpus for need in needs) > spec.cpus
        or sum(need.memory for need in needs) > spec.memory
        or sum(need.idlers for need in needs) > spec.cpus
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
    return Need(request.cpus, request.memory, not request.cpus, request.gpus, frozenset(kinds))


def needs_of(share: Allocation, spec: NodeSpec) -> list[Need]:
    """What a share has of a node: of GPUs, those kinds that it has."""
    kinds = Counter(spec.gpus[gpu] for gpu in share.gpus)
    return [
        Need(share.cpus, share.memory, not share.cpus, 0, frozenset()),
        *(Need(0, 0, 0, count, frozenset({kind})) for kind, count in kinds.items()),
    ]


@dataclass
class _Span:
    """A share that is held for a time, or reserved."""

    needs: list[Need]
    start: int
    end: int


@dataclass
class Plan:
    """What is held of nodes and under limits from now on, in microseconds."""

    look: Look
    spans: dict[str, list[_Span]]
    #: What holds something of limits, from when, and until when.
    holders: list[tuple[JobRecord, int, int]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    unknown: set[object] = field(default_factory=set)
    reserved: int = 0
    starts: dict[object, int] = field(default_factory=dict)
    #: From when the next under a limit may start: nobody passes one that it keeps waiting.
    floors: dict[tuple[Account, bool], int] = field(default_factory=dict)

    @classmethod
    def of(cls, attack: Attack, look: Look) -> "Plan":
        """What is held and promised now."""
        plan = cls(look, {name: [] for name in look.cluster.nodes})
        for job in look.held.values():
            began = job.run_began.micros if job.run_began else attack.now
            start, end = 0, end_of(job, ran=attack.now - began)
            if job.promise is not None:
                # From when what is being stopped has ended.
                start, end = 1, min(1 + (job.max_runtime or FOREVER), FOREVER)
            for share in shares_of(job):
                spec = look.cluster.nodes[share.node_id].spec
                plan.spans[share.node_id].append(_Span(needs_of(share, spec), start, end))
            plan.holders.append((job, 0, end))
        return plan

    def reserve(self, job: JobRecord) -> None:
        """Plan one job behind those before it."""
        alike = self.look.alike_of(job)
        if self.reserved >= RESERVED or alike in self.unknown:
            return
        self.reserved += 1
        length = job.max_runtime or FOREVER
        moment = self.starts.get(alike, 0)
        while (moment := self._allowed(job, moment, length)) < FOREVER:
            found = self._first(job, moment, length)
            if found is None:
                break
            if found == moment:
                self._hold(job, moment, length)
                self.known.add(job.job_id)
                self.starts[alike] = moment
                return
            moment = found
        self.unknown.add(alike)

    def _first(self, job: JobRecord, start: int, length: int) -> int | None:
        """The first moment from `start` on at which there is room."""
        request, usable = job.resource_request, self.look.usable(job)
        moments = {start, *(span.end for name in usable for span in self.spans[name])}
        for moment in sorted(moments - {FOREVER}):
            if moment >= start:
                able = [name for name in usable if self._share(name, request, moment, length)]
                if len(able) >= request.nodes:
                    return moment
        return None

    def _hold(self, job: JobRecord, moment: int, length: int) -> None:
        request, end = job.resource_request, min(moment + length, FOREVER)
        able = [
            name
            for name in self.look.usable(job)
            if self._share(name, request, moment, length) is not None
        ]
        found = self.look.cluster.place(
            request,
            among=able,
            fit=lambda node: Allocation(node.spec.node_id, (), request.cpus, request.memory),
        )
        assert found is not None
        for share in found:
            needs = self._share(share.node_id, request, moment, length)
            assert needs is not None
            self.spans[share.node_id].append(_Span(needs, moment, end))
        self.holders.append((job, moment, end))

    def _share(
        self, name: str, request: ResourceRequest, moment: int, length: int
    ) -> list[Need] | None:
        """What a request has of a node from a moment on: GPUs with the least memory first; None if
        it does not fit for so long."""
        spec = self.look.cluster.nodes[name].spec
        free = {
            kind: min(
                spec.gpus.count(kind) - sum(need.gpus for need in needs if need.kinds == {kind})
                for needs in self._at(name, moment, moment + length)
            )
            for kind in sorted(set(spec.gpus), key=lambda gpu: (gpu.memory, gpu.type))
        }
        needs = [Need(request.cpus, request.memory, not request.cpus, 0, frozenset())]
        left = request.gpus
        for kind, count in free.items():
            if suits(kind, request) and (taken := min(max(count, 0), left)):
                needs.append(Need(0, 0, 0, taken, frozenset({kind})))
                left -= taken
        return needs if not left and self.has_room(name, needs, moment, length) else None

    def _at(self, name: str, moment: int, end: int) -> Iterator[list[Need]]:
        """What is held of a node whenever that changes."""
        spans = self.spans[name]
        for at in {moment, *(span.start for span in spans if moment < span.start < end)}:
            yield [need for each in spans if each.start <= at < each.end for need in each.needs]

    def has_room(self, name: str, more: list[Need], moment: int, length: int) -> bool:
        """Whether a node has room for more from a moment on, for so long."""
        spec = self.look.cluster.nodes[name].spec
        return all(fits(spec, [*more, *needs]) for needs in self._at(name, moment, moment + length))

    def _allowed(self, job: JobRecord, moment: int, length: int) -> int:
        """The first moment from one on from which no limit is in the way."""
        gpus = bool(job.resource_request.gpus)
        for limit in self.look.rules.limits_of(job):
            start = max(moment, self.floors.get((limit.account, gpus), 0))
            moments = {start, *(end for _, _, end in self.holders if end > start)}
            moment = min(
                (
                    each
                    for each in moments - {FOREVER}
                    if self.allows(limit, limit.limits, job, each, length)
                ),
                default=FOREVER,
            )
            if moment > start:
                for kind in {True, gpus} if limit.limits.jobs is None else (True, False):
                    self.floors[limit.account, kind] = moment
        return moment

    def allows(
        self, limit: Limit, limits: Limits, job: JobRecord, moment: int, length: int
    ) -> bool:
        """Whether a limit leaves a job its part from a moment on, for so long."""
        own = [each for each in self.holders if limit.covers(each[0])]
        gpus = total_gpus(job.resource_request)
        for at in {moment, *(start for _, start, _ in own if moment < start < moment + length)}:
            held = [other for other, start, end in own if start <= at < end]
            used = sum(total_gpus(other.resource_request) for other in held)
            if limits.jobs is not None and len(held) >= limits.jobs:
                return False
            if gpus and limits.gpus is not None and used + gpus > limits.gpus:
                return False
        return True
