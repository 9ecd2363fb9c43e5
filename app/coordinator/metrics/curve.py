"""Which snapshots of a curve stay where there are too many, so that it still looks the same.

What is chosen are snapshots, told by their places: the bytes before them.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.coordinator.metrics.blocks import (
    BLOCK,
    STEPS,
    Notable,
    Part,
    note,
    read_blocks,
    series_of,
)
from app.coordinator.metrics.snapshots import MetricsReader
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot

#: Snapshots up to which a curve is looked at one by one where blocks are too coarse for it.
FEW: Final = 32 * 1024
#: The same where points are chosen: looking at so few costs less than reading the points.
FEW_POINTS: Final = 2 * 1024
#: Snapshots of a block that are looked at for each that is wanted.
_LOOKS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of a curve is asked for."""

    #: Names of series; empty means all.
    keys: frozenset[str] = frozenset()
    #: Both included; None sets no bound.
    from_step: int | None = None
    to_step: int | None = None

    @property
    def by_step(self) -> bool:
        """Whether steps are bounded."""
        return self.from_step is not None or self.to_step is not None

    def has(self, step: float) -> bool:
        """Whether a step is within the bounds."""
        return (self.from_step is None or step >= self.from_step) and (
            self.to_step is None or step <= self.to_step
        )

    def misses(self, steps: Notable) -> bool:
        """Whether none of a part's steps is within the bounds."""
        return (self.from_step is not None and steps.high < self.from_step) or (
            self.to_step is not None and steps.low > self.to_step
        )

    def series(self, part: Part) -> Part:
        """The series of a part that are asked for."""
        if self.keys:
            return {name: series for name, series in part.items() if name in self.keys}
        return {name: series for name, series in part.items() if name != STEPS}


@dataclass(slots=True)
class _Chosen:
    """Which snapshots stay; those that are added first matter most."""

    limit: int
    #: In the order in which they were added.
    places: dict[int, None] = field(default_factory=dict)

    @property
    def left(self) -> int:
        return self.limit - len(self.places)

    def add(self, *places: int) -> None:
        for place in places:
            if place >= 0 and self.left > 0:
                self.places[place] = None


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of the curve, a block at most."""

    #: How many snapshots that are asked for lie before it.
    before: int
    #: How many there are, and the numbers between which they lie: the first excluded.
    count: int
    after: int
    through: int
    part: Part


@dataclass(frozen=True, slots=True)
class Curve:
    """What is selected of the first `total` snapshots."""

    directory: Path
    reader: MetricsReader
    total: int
    selection: Selection

    def count(self, *, most: int) -> tuple[int, list[tuple[int, int]]]:
        """How many snapshots are of the steps that are asked for, and the numbers between which
        they lie; those only if there are at most `most`."""
        if not self.selection.by_step:
            return self.total, [(0, self.total)]
        count = 0
        spans: list[tuple[int, int]] = []
        for stretch in self._stretches(BLOCK):
            count += stretch.count
            if count > most:
                spans.clear()
            elif spans and spans[-1][1] == stretch.after:
                spans[-1] = (spans[-1][0], stretch.through)
            else:
                spans.append((stretch.after, stretch.through))
        return count, spans

    def within(self, spans: Sequence[tuple[int, int]]) -> Iterator[MetricsSnapshot]:
        """The snapshots of the steps that are asked for, behind and up to some numbers."""
        for after, through in spans:
            for snapshot, _ in self._first(through, after=after):
                if self.selection.has(snapshot.step):
                    yield snapshot

    def choose(self, max_points: int, *, count: int) -> list[int]:
        """The places of the snapshots that stay of `count`; those that matter most come first."""
        chosen = _Chosen(max_points)
        whole: Part = {}
        steps: Part = {}
        distinct = 0
        blocks = list(self._stretches(BLOCK))
        for stretch in blocks:
            part = self.selection.series(stretch.part)
            _join(whole, part, most=max_points)
            if STEPS in stretch.part:
                _join(steps, {STEPS: stretch.part[STEPS]}, most=1)
            distinct += len(_extremes(part))
        if not self.selection.by_step and not self.selection.keys:
            chosen.add(self._last_place(), 0)
        elif STEPS in steps and not self.selection.keys:
            chosen.add(steps[STEPS].last, steps[STEPS].first)
        for name in sorted(whole, key=lambda name: name != "loss"):
            series = whole[name]
            chosen.add(series.last, series.first, series.low_at, series.high_at)
        # Series have their extremes at the same place more or less often.
        if parts := min(chosen.left * len(blocks) // max(distinct, 1), count):
            more: set[int] = set()
            size = math.ceil(count / parts)
            fine = size < BLOCK and self.total <= FEW_POINTS
            stretches = self._stretches(size, few=FEW_POINTS) if fine else blocks
            for part in _equal_parts(stretches, parts, count=count, most=max_points):
                more |= _extremes(self.selection.series(part))
            chosen.add(*_evenly(sorted(more - chosen.places.keys()), chosen.left))
        self._fill(chosen, blocks)
        return list(chosen.places)

    def _fill(self, chosen: _Chosen, blocks: Sequence[_Stretch]) -> None:
        """Add snapshots from all of the curve, the same number of each block, until there are as
        many as are wanted, or no more."""
        wanted = chosen.left
        for at, block in enumerate(blocks, 1):
            due = wanted * at // len(blocks) - (wanted - chosen.left)
            if due > 0:
                others = self._others(block, chosen, limit=min(_LOOKS * due, BLOCK))
                chosen.add(*_evenly(others, due))
        for block in blocks:
            if chosen.left:
                # What blocks were short of.
                chosen.add(*self._others(block, chosen, limit=BLOCK))

    def _others(self, stretch: _Stretch, chosen: _Chosen, *, limit: int) -> list[int]:
        """The places of those of a block's first snapshots that are not chosen."""
        first = min((series.first for series in stretch.part.values()), default=-1)
        if first < 0:
            return []
        return [
            place
            for snapshot, place in self.reader.from_place(first, limit=limit)
            if stretch.after < snapshot.sequence <= min(stretch.through, self.total)
            and place not in chosen.places
            and self.selection.has(snapshot.step)
            and self._is_named(snapshot)
        ]

    def _is_named(self, snapshot: MetricsSnapshot) -> bool:
        keys = self.selection.keys
        return not keys or any(name in keys for name, _ in series_of(snapshot))

    def names(self) -> list[str]:
        """The series that there are."""
        whole: dict[str, None] = {}
        for stretch in self._stretches(BLOCK):
            whole.update(dict.fromkeys(self.selection.series(stretch.part)))
        return list(whole)

    def equal_parts(self, parts: int, *, count: int, most: int) -> Iterator[Part]:
        """So many parts of the curve, which has `count` snapshots, with their steps and no more
        series than `most` in each; fewer parts where blocks are too coarse."""
        stretches = self._stretches(math.ceil(count / parts), few=FEW, with_steps=True)
        return _equal_parts(stretches, parts, count=count, most=most)

    def _stretches(
        self, size: int, *, few: int = 0, with_steps: bool = False
    ) -> Iterator[_Stretch]:
        """The curve in stretches of at most `size` snapshots, or of a block where there are more
        than `few`. With `with_steps` each has its steps."""
        number = before = 0
        if size >= BLOCK or self.total > few:
            size = BLOCK
            for part in read_blocks(self.directory, snapshots=self.total):
                count = BLOCK
                if self.selection.by_step or with_steps:
                    part, count = self._selected(number, part)
                if count:
                    yield _Stretch(before, count, number, number + BLOCK, part)
                number, before = number + BLOCK, before + count
        part, count = {}, 0
        for snapshot, place in self._first(self.total, after=number):
            if self.selection.has(snapshot.step):
                note(part, snapshot, place)
                count += 1
            if snapshot.sequence - number >= size:
                if count:
                    yield _Stretch(before, count, number, snapshot.sequence, part)
                before, number = before + count, snapshot.sequence
                part, count = {}, 0
        if count:
            yield _Stretch(before, count, number, self.total, part)

    def _selected(self, number: int, part: Part) -> tuple[Part, int]:
        """What of a block is of the steps that are asked for: with its steps, and how many."""
        steps = part.get(STEPS)
        if steps is not None:
            if self.selection.misses(steps):
                return {}, 0
            if self.selection.has(steps.low) and self.selection.has(steps.high):
                return part, BLOCK
        # Its ends are within the block, or an earlier coordinator wrote it.
        part, count = {}, 0
        for snapshot, place in self._first(number + BLOCK, after=number):
            if self.selection.has(snapshot.step):
                note(part, snapshot, place)
                count += 1
        return part, count

    def _first(self, total: int, *, after: int) -> Iterator[tuple[MetricsSnapshot, int]]:
        """Those of the first `total` snapshots that are behind number `after`, and their places."""
        for snapshot, place in self.reader.places(after=after):
            if snapshot.sequence > total:
                return
            yield snapshot, place

    def _last_place(self) -> int:
        return self.reader.locate(self.total - 1).position


def _equal_parts(
    stretches: Iterable[_Stretch], parts: int, *, count: int, most: int
) -> Iterator[Part]:
    current, equal = 0, Part()
    for stretch in stretches:
        if stretch.before * parts // count != current:
            yield equal
            current, equal = stretch.before * parts // count, {}
        _join(equal, stretch.part, most=most)
    yield equal


def _join(whole: Part, later: Part, *, most: int) -> None:
    """Add a later part to `whole`, which gets no more than `most` series."""
    for name, series in later.items():
        known = whole.get(name)
        if known is not None:
            known.join(series)
        elif len(whole) < most:
            whole[name] = Notable(
                series.first, series.last, series.low, series.low_at, series.high, series.high_at
            )


def _extremes(part: Part) -> set[int]:
    """Where its series are lowest and highest."""
    places = {series.low_at for series in part.values()}
    places.update(series.high_at for series in part.values())
    places.discard(-1)
    return places


def _evenly(places: Sequence[int], most: int) -> Sequence[int]:
    """At most so many of them, from everywhere."""
    if len(places) <= most:
        return places
    return [places[at * len(places) // most] for at in range(most)]
