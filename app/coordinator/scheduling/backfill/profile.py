"""What is held of one node from now on, as steps over time.

Times are microseconds from now. GPUs that are alike are counted: a plan says how
many are held, and which ones is decided when a job starts. Enough of a kind at
each moment are enough for the whole time, since what runs now keeps its own and the
others can be given out in the order of their starts.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import add
from typing import Final, NamedTuple, TypeAlias

from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import suits
from app.coordinator.jobs.model import Allocation, ResourceRequest

#: The end of what has none.
FOREVER: Final = 2**63
#: Cores, bytes of memory, jobs without cores, then GPUs of each kind.
Amounts: TypeAlias = tuple[int, ...]
_GPUS: Final = 3


class Window(NamedTuple):
    """From the first until the last moment at which something could start, and what it takes."""

    first: int
    last: int
    amounts: Amounts


class Profile:
    """The steps of one node. A look or a change costs the number of steps that it covers."""

    def __init__(self, spec: NodeSpec, held: Iterable[tuple[Allocation, int]]) -> None:
        """`held` are the shares that are held now, each with its end."""
        self._spec = spec
        self._kinds, self._kind_of = _kinds(spec.gpus)
        self._capacity: Amounts = (
            spec.cpus,
            spec.memory,
            spec.cpus,
            *map(self._kind_of.count, range(len(self._kinds))),
        )
        #: When each step begins; it ends where the next one does.
        self._starts = [0]
        self._used: list[Amounts] = [(0,) * len(self._capacity)]
        #: Whether what is held only becomes less.
        self._sinks = True
        self._fill(held)

    def _fill(self, held: Iterable[tuple[Allocation, int]]) -> None:
        now, ends = self._used[0], []
        for share, end in held:
            amounts = self.amounts_of(share)
            now = tuple(map(add, now, amounts))
            if end < FOREVER:
                ends.append((end, amounts))
        self._used[0] = now
        for end, amounts in sorted(ends):
            after = tuple(map(int.__sub__, self._used[-1], amounts))
            if self._starts[-1] == end:
                self._used[-1] = after
            else:
                self._starts.append(end)
                self._used.append(after)

    def amounts_of(self, share: Allocation) -> Amounts:
        """What a share takes of the node."""
        if len(self._kinds) == 1:
            return (share.cpus, share.memory, int(not share.cpus), len(share.gpus))
        gpus = [self._kind_of[index] for index in share.gpus if index < len(self._kind_of)]
        counts = map(gpus.count, range(len(self._kinds)))
        return (share.cpus, share.memory, int(not share.cpus), *counts)

    def take(self, amounts: Amounts, start: int, end: int) -> None:
        """Hold this from `start` until `end`."""
        first = self._split(start)
        last = len(self._starts) if end >= FOREVER else self._split(end)
        self._sinks = False
        for at in range(first, last):
            self._used[at] = tuple(map(add, self._used[at], amounts))

    def _split(self, moment: int) -> int:
        """The number of the step that begins at a moment."""
        at = bisect_left(self._starts, moment)
        if at == len(self._starts) or self._starts[at] != moment:
            self._starts.insert(at, moment)
            self._used.insert(at, self._used[at - 1])
        return at

    def window(
        self, resource_request: ResourceRequest, length: int, *, start: int, before: int = FOREVER
    ) -> Window | None:
        """The first moments from `start` on from which a request fits for so long; the empty node
        has what is asked for. None if there are none; with `before`, the first of these moments is
        ahead of that, and the last one is not looked for."""
        suiting = (
            [kind for kind, gpu in enumerate(self._kinds) if suits(gpu, resource_request)]
            if resource_request.gpus
            else []
        )
        if len(suiting) > 1:
            return self._window_of_kinds(resource_request, suiting, length, start, before)
        amounts = self._amounts(resource_request, dict.fromkeys(suiting, resource_request.gpus))
        # What may be held beside it, of what it asks for at all.
        limits = [
            (which, self._capacity[which] - amount)
            for which, amount in enumerate(amounts)
            if amount
        ]
        found: int | None = None
        begins = max(start, 0)
        starts, used = self._starts, self._used
        if self._sinks and any(used[-1][which] > most for which, most in limits):
            return None
        steps = len(starts)
        for at in range(bisect_right(starts, begins) - 1, steps):
            here = used[at]
            for which, most in limits:
                if here[which] > most:
                    break
            else:
                if found is None and (
                    at + 1 == steps or (length < FOREVER and starts[at + 1] - begins >= length)
                ):
                    found = begins
                    if before < FOREVER:
                        return Window(found, found, amounts)
                continue
            if found is not None:
                return Window(found, starts[at] - length, amounts)
            begins = starts[at + 1] if at + 1 < steps else FOREVER
            if begins >= before:
                return None
        return None if found is None else Window(found, FOREVER, amounts)

    def _window_of_kinds(
        self,
        resource_request: ResourceRequest,
        suiting: Sequence[int],
        length: int,
        start: int,
        before: int,
    ) -> Window | None:
        """The same where GPUs of several kinds will do: the first moment alone."""
        at = bisect_right(self._starts, start)
        for moment in (start, *self._starts[at:]):
            if moment >= before:
                return None
            if amounts := self._fit(resource_request, suiting, moment, moment + length):
                return Window(moment, moment, amounts)
        return None

    def _fit(
        self, resource_request: ResourceRequest, suiting: Sequence[int], start: int, end: int
    ) -> Amounts | None:
        """What a request takes if it fits all the time; of several kinds, those with the least
        memory first."""
        first = bisect_right(self._starts, start) - 1
        steps = self._used[first : bisect_left(self._starts, end)]
        most = [max(column) for column in zip(*steps, strict=True)]
        taken, missing = {}, resource_request.gpus
        for kind in suiting:
            free = self._capacity[_GPUS + kind] - most[_GPUS + kind]
            taken[kind] = max(min(free, missing), 0)
            missing -= taken[kind]
        amounts = self._amounts(resource_request, taken)
        fits = not missing and all(
            not amount or used + amount <= capacity
            for amount, used, capacity in zip(amounts, most, self._capacity, strict=True)
        )
        return amounts if fits else None

    def _amounts(self, resource_request: ResourceRequest, gpus: dict[int, int]) -> Amounts:
        cpus = resource_request.cpus
        counts = (gpus.get(kind, 0) for kind in range(len(self._kinds)))
        return (cpus, resource_request.memory, int(not cpus), *counts)

    def beyond(self, amounts: Amounts, taken: Iterable[int]) -> frozenset[int]:
        """The free GPUs that a job does not take if it takes so many of each kind; `taken` are
        those that are not free."""
        left = list(amounts[_GPUS:])
        avoided = []
        held = frozenset(taken)
        for index, kind in enumerate(self._kind_of):
            if index in held:
                continue
            left[kind] -= 1
            if left[kind] < 0:
                avoided.append(index)
        return frozenset(avoided)


@lru_cache(maxsize=256)
def _kinds(gpus: tuple[GpuSpec, ...]) -> tuple[tuple[GpuSpec, ...], tuple[int, ...]]:
    """The kinds of a node's GPUs, those with the least memory first, and the kind of each GPU."""
    kinds = sorted(set(gpus), key=lambda gpu: (gpu.memory, gpu.type))
    return tuple(kinds), tuple(map(kinds.index, gpus))
