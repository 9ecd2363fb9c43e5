"""What is compared: a ratio of two costs that were measured in one run, one beside the other."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median

from scripts.bench.fanout_rig.processes import WatchersDropped

#: Measures each of some axes once.
Measure = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """A cost over another one; less is better."""

    name: str
    #: What the two costs are.
    what: str
    #: The part by which the ratio may be above the baseline's.
    tolerance: float = 0.25
    #: Whether a loss fails the check. Latency is only told: it follows the load of the machine.
    judged: bool = True


@dataclass(frozen=True, slots=True)
class Family:
    """Axes that are measured by the same servers."""

    name: str
    axes: tuple[Axis, ...]
    #: Starts what is needed; the value measures.
    opened: Callable[[], AbstractContextManager[Measure]]
    #: What this machine lacks, or an empty text.
    lacks: Callable[[], str] = str
    #: Measurements; and how many more decide if an axis is worse than it may be.
    rounds: int = 3
    further: int = 6


@dataclass(frozen=True, slots=True)
class Expected:
    """What the baseline has of an axis."""

    ratio: float
    tolerance: float

    @property
    def limit(self) -> float:
        """The largest ratio that is no loss."""
        return self.ratio * (1 + self.tolerance)


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured of an axis: all of it, in the order in which it was measured."""

    axis: Axis
    ratios: tuple[float, ...]
    expected: Expected | None

    @property
    def ratio(self) -> float:
        """The middle."""
        return median(self.ratios)

    @property
    def worse(self) -> bool:
        """Whether it is a loss that fails the check."""
        return self.axis.judged and self.expected is not None and self.ratio > self.expected.limit


def measured(
    family: Family, expected: Mapping[str, Expected], *, thoroughly: bool = False
) -> list[Found]:
    """Measure a family.

    If an axis is worse than it may be after its rounds, all of the family are measured further, and
    the middle of all measurements counts: no first result is thrown away. `thoroughly` measures
    further in any case. Where watchers were dropped, it goes on with servers started anew, once,
    and says so on stderr. Raises `RigError`.
    """
    ratios: dict[str, list[float]] = {axis.name: [] for axis in family.axes}

    def measure(one_round: Measure, rounds: int) -> list[Found]:
        """Measure until there are so many rounds."""
        while len(ratios[family.axes[0].name]) < rounds:
            for name, ratio in one_round().items():
                ratios[name].append(ratio)
        return [
            Found(axis, tuple(ratios[axis.name]), expected.get(axis.name)) for axis in family.axes
        ]

    def attempt() -> list[Found]:
        with family.opened() as one_round:
            found = measure(one_round, family.rounds)
            if thoroughly or any(each.worse for each in found):
                found = measure(one_round, family.rounds + family.further)
        return found

    try:
        return attempt()
    except WatchersDropped as error:
        print(f"{family.name}: {error}. Going on with servers started anew.", file=sys.stderr)
        return attempt()


def losses(found: Sequence[Found]) -> list[str]:
    """The axes that fail the check, each with its reason."""
    return [
        f"{each.axis.name}: {each.ratio:.2f}, in the middle of {len(each.ratios)}, is "
        f"{each.ratio / each.expected.ratio - 1:.0%} above the baseline "
        f"({each.expected.ratio:.2f}; at most {each.expected.tolerance:.0%})"
        for each in found
        if each.worse and each.expected is not None
    ] + [
        f"{each.axis.name}: the baseline has no such axis; scripts/bench/check --update adds it"
        for each in found
        if each.expected is None
    ]
