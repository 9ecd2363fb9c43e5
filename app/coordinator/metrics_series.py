"""Fewer points of a job's metrics, chosen so that its curves still look the same."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot

from .journal import Cursor
from .metrics import MetricsReader


@dataclass(slots=True)
class _Extremes:
    """Where a series is lowest and highest, by sequence number."""

    low: float = math.inf
    high: float = -math.inf
    low_at: int = 0
    high_at: int = 0

    def add(self, value: float, sequence: int) -> None:
        if value < self.low:
            self.low, self.low_at = value, sequence
        if value > self.high:
            self.high, self.high_at = value, sequence

    def places(self) -> list[int]:
        return [at for at in (self.low_at, self.high_at) if at]


@dataclass(slots=True)
class _Chosen:
    """Which snapshots stay, those that matter most first."""

    limit: int
    numbers: dict[int, None] = field(default_factory=dict)

    def add(self, *sequences: int) -> None:
        for sequence in sequences:
            if len(self.numbers) < self.limit:
                self.numbers.setdefault(sequence)


def downsample(directory: Path, max_points: int) -> tuple[list[MetricsSnapshot], int]:
    """At most `max_points` snapshots by sequence, and how many there are in all.

    The first and the last snapshot stay, and for each series its lowest and
    its highest, as far as `max_points` allows; the rest are the lowest and
    highest points of the loss, or of whichever series comes first, over equal
    parts of the curve. Reads the whole file in bounded memory. Blocks.
    """
    with MetricsReader(directory) as reader:
        total = reader.last()
        if total <= max_points:
            return list(_all(reader, total)), total
        chosen = _Chosen(max_points)
        chosen.add(1, total)
        parts = max(max_points // 2, 1)
        overall: dict[str, _Extremes] = {}
        by_part: dict[int, _Extremes] = {}
        main = ""
        for snapshot in _all(reader, total):
            for name, value in _series(snapshot):
                if math.isfinite(value):
                    if not main or (name == "loss" != main):
                        main = name
                        by_part.clear()
                    overall.setdefault(name, _Extremes()).add(value, snapshot.sequence)
                    if name == main:
                        part = (snapshot.sequence - 1) * parts // total
                        by_part.setdefault(part, _Extremes()).add(value, snapshot.sequence)
        for extremes in (*overall.values(), *_spread(list(by_part.values()))):
            chosen.add(*extremes.places())
        return _pick(reader, sorted(chosen.numbers)), total


def _series(snapshot: MetricsSnapshot) -> Iterator[tuple[str, float]]:
    for descriptor, value in snapshot.ListFields():
        if descriptor.name in ("eval_metrics", "extra"):
            yield from value.items()
        elif descriptor.name not in ("sequence", "step", "timestamp"):
            yield descriptor.name, value


def _all(reader: MetricsReader, total: int) -> Iterator[MetricsSnapshot]:
    cursor = Cursor()
    while cursor.number < total:
        snapshots, cursor = reader.after(cursor)
        yield from snapshots


def _spread(parts: list[_Extremes]) -> list[_Extremes]:
    """The same parts, so ordered that any number of the first ones covers the whole evenly."""
    order: dict[int, None] = {}
    step = len(parts)
    while step > 0:
        for at in range(0, len(parts), step):
            order.setdefault(at)
        step //= 2
    return [parts[at] for at in order]


def _pick(reader: MetricsReader, numbers: list[int]) -> list[MetricsSnapshot]:
    picked = []
    cursor, block = Cursor(), dict[int, MetricsSnapshot]()
    for number in numbers:
        if number not in block:
            cursor = reader.locate(number - 1)
            snapshots, cursor = reader.after(cursor, limit=512)
            block = {snapshot.sequence: snapshot for snapshot in snapshots}
        picked.append(block[number])
    return picked
