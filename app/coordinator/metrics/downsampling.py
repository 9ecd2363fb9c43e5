"""Fewer points of a job's metrics, chosen so that its curves still look the same.

What is chosen are snapshots, told by their places: the bytes before them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.coordinator.errors import InvalidArgument
from app.coordinator.metrics.blocks import BLOCK, Notable, Part, count_blocks, note, read_blocks
from app.coordinator.metrics.snapshots import MetricsReader, MetricsWriter
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.locks import Locked, locked
from generated.mindcoordinator.v1.watch_pb2 import (
    GetJobMetricsRequest,
    GetJobMetricsResponse,
    MetricsSnapshot,
)

#: Snapshots up to which a curve is looked at one by one where blocks are too coarse for it.
FEW: Final = 32 * 1024
DEFAULT_POINTS: Final = 1000
MAX_POINTS: Final = 10_000
#: Bytes of snapshots that are answered with at most; a message is bounded.
MAX_BYTES: Final = 4 * 1024 * 1024


def job_metrics(
    directory: JobDir, request: GetJobMetricsRequest, *, ended: bool
) -> GetJobMetricsResponse:
    """A job's metrics so far, downsampled. Blocks. Raises RequestError."""
    if not 0 <= request.max_points <= MAX_POINTS:
        raise InvalidArgument("max_points", f"must be from 0 to {MAX_POINTS}")
    if ended:
        _complete_blocks(directory)
    points, total = downsample(directory.metrics, request.max_points or DEFAULT_POINTS)
    return GetJobMetricsResponse(job_id=request.job_id, points=points, total_points=total)


def _complete_blocks(directory: JobDir) -> None:
    """Have many missing blocks made: of a job that has ended no writer will add them."""
    with MetricsReader(directory.metrics) as reader:
        missing = reader.last() // BLOCK - count_blocks(directory.metrics)
    if missing > FEW // BLOCK:
        with suppress(Locked, OSError), locked(directory.lock, wait=False):
            MetricsWriter(directory.metrics).close()


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


def downsample(directory: Path, max_points: int) -> tuple[list[MetricsSnapshot], int]:
    """At most `max_points` snapshots by step, and how many there are in all.

    Of snapshots with very many numbers there are fewer: MAX_BYTES of them at most.
    The last and the first snapshot stay, and for each series its last, first,
    lowest and highest point. The rest are the lowest and the highest points
    of equal parts of the curve, for each series the same number. Where
    `max_points` is too small for the ends and extremes of all series, the
    loss comes first, then the others by their first appearance.

    Time and memory are those of one record per BLOCK snapshots and of
    `max_points`, if the blocks are there. Blocks.
    """
    with MetricsReader(directory) as reader:
        total = reader.last()
        size = reader.locate(total).position
        max_points = min(max_points, max(MAX_BYTES * total // max(size, 1), 1))
        if total <= max_points:
            points = [snapshot for snapshot, _ in _first(reader, total)]
        else:
            chosen = _Curve(directory, reader, total).choose(max_points)
            found = (reader.at(place) for place in chosen)
            points = list(_fitting(point for point in found if point is not None))
    points.sort(key=lambda point: point.step)
    return points, total


def _fitting(snapshots: Iterator[MetricsSnapshot]) -> Iterator[MetricsSnapshot]:
    """Those that come first and have MAX_BYTES together; at least one."""
    size = 0
    for snapshot in snapshots:
        size += snapshot.ByteSize()
        if size > MAX_BYTES and size > snapshot.ByteSize():
            return
        yield snapshot


@dataclass(frozen=True, slots=True)
class _Curve:
    """The first `total` snapshots."""

    directory: Path
    reader: MetricsReader
    total: int

    def choose(self, max_points: int) -> list[int]:
        """The places of the snapshots that stay; those that matter most come first."""
        chosen = _Chosen(max_points)
        chosen.add(self._last_place(), 0)
        whole: Part = {}
        blocks = distinct = 0
        for _, part in self._parts(BLOCK):
            _join(whole, part, most=max_points)
            blocks += 1
            distinct += len(_extremes(part))
        for name in sorted(whole, key=lambda name: name != "loss"):
            series = whole[name]
            chosen.add(series.last, series.first, series.low_at, series.high_at)
        # Series have their extremes at the same place more or less often.
        if count := min(chosen.left * blocks // max(distinct, 1), self.total):
            more: set[int] = set()
            for part in self._equal_parts(count, most=max_points):
                more |= _extremes(part)
            chosen.add(*_evenly(sorted(more - chosen.places.keys()), chosen.left))
        return list(chosen.places)

    def _equal_parts(self, count: int, *, most: int) -> Iterator[Part]:
        """`count` parts of the curve, with no more series than `most` in each; fewer parts where
        blocks are too coarse."""
        current, equal = 0, Part()
        for number, part in self._parts(math.ceil(self.total / count)):
            if number * count // self.total != current:
                yield equal
                current, equal = number * count // self.total, {}
            _join(equal, part, most=most)
        yield equal

    def _parts(self, size: int) -> Iterator[tuple[int, Part]]:
        """The curve in parts of at most `size` snapshots, or of a block where that would take
        long; and how many snapshots lie before each."""
        number = 0
        if size >= BLOCK or self.total > FEW:
            size = BLOCK
            for part in read_blocks(self.directory, snapshots=self.total):
                yield number, part
                number += BLOCK
        part = {}
        for snapshot, place in _first(self.reader, self.total, after=number):
            note(part, snapshot, place)
            if snapshot.sequence - number == size:
                yield number, part
                part, number = {}, snapshot.sequence
        if part:
            yield number, part

    def _last_place(self) -> int:
        return self.reader.locate(self.total - 1).position


def _first(
    reader: MetricsReader, total: int, *, after: int = 0
) -> Iterator[tuple[MetricsSnapshot, int]]:
    """Those of the first `total` snapshots that are behind number `after`, and their places."""
    for snapshot, place in reader.places(after=after):
        if snapshot.sequence > total:
            return
        yield snapshot, place


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
