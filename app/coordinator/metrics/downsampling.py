"""A job's metrics so far: all of them, or fewer points of the same curves."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.coordinator.errors import all_problems
from app.coordinator.metrics.blocks import (
    BLOCK,
    MAX_SERIES,
    STEPS,
    count_blocks,
    have_steps,
    named_numbers,
)
from app.coordinator.metrics.curve import FEW, Curve, Selection
from app.coordinator.metrics.snapshots import MetricsReader, MetricsWriter
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.locks import Locked, locked
from generated.mindcoordinator.v1.watch_pb2 import (
    GetJobMetricsRequest,
    GetJobMetricsResponse,
    MetricsBucket,
    MetricsBuckets,
    MetricsSnapshot,
)

DEFAULT_POINTS: Final = 1000
MAX_POINTS: Final = 10_000
#: Bytes of snapshots, and of buckets, that are answered with at most; a message is bounded.
MAX_BYTES: Final = 4 * 1024 * 1024
MAX_BUCKET_BYTES: Final = 2 * 1024 * 1024
#: Bytes of a bucket beside its key.
_BUCKET: Final = 48
_ALL: Final = Selection()


@dataclass(frozen=True, slots=True)
class Drawn:
    """Points by step, and what lies between them."""

    points: list[MetricsSnapshot]
    #: How many snapshots there are of the steps that were asked for.
    total: int
    #: None if no points were left out, or it was not asked for.
    buckets: list[MetricsBucket] | None = field(default=None)


def job_metrics(
    directory: JobDir, request: GetJobMetricsRequest, *, ended: bool
) -> GetJobMetricsResponse:
    """A job's metrics so far, downsampled. Blocks. Raises RequestError."""
    selection = _selection(request)
    if ended:
        _complete_blocks(directory, with_steps=selection.by_step or request.with_buckets)
    drawn = draw(
        directory.metrics,
        request.max_points or DEFAULT_POINTS,
        selection,
        with_buckets=request.with_buckets,
    )
    return GetJobMetricsResponse(
        job_id=request.job_id,
        points=drawn.points,
        total_points=drawn.total,
        between=None if drawn.buckets is None else MetricsBuckets(buckets=drawn.buckets),
    )


def _selection(request: GetJobMetricsRequest) -> Selection:
    """Raises InvalidArgument."""
    from_step = request.from_step if request.HasField("from_step") else None
    to_step = request.to_step if request.HasField("to_step") else None
    with all_problems() as problems:
        if not 0 <= request.max_points <= MAX_POINTS:
            problems.add("max_points", f"must be from 0 to {MAX_POINTS}")
        if len(request.keys) > MAX_SERIES:
            problems.add("keys", f"must be at most {MAX_SERIES}")
        elif not all(request.keys):
            problems.add("keys", "must not be empty")
        if from_step is not None and to_step is not None and from_step > to_step:
            problems.add("to_step", "must not be below from_step")
    return Selection(keys=frozenset(request.keys), from_step=from_step, to_step=to_step)


def _complete_blocks(directory: JobDir, *, with_steps: bool) -> None:
    """Have many missing blocks made: of a job that has ended no writer will add them."""
    with MetricsReader(directory.metrics) as reader:
        total = reader.last()
    missing = total // BLOCK - count_blocks(directory.metrics)
    outdated = with_steps and total > FEW and not have_steps(directory.metrics)
    if missing > FEW // BLOCK or outdated:
        with suppress(Locked, OSError), locked(directory.lock, wait=False):
            MetricsWriter(directory.metrics).close()


def downsample(directory: Path, max_points: int) -> tuple[list[MetricsSnapshot], int]:
    """What `draw` has of all series and steps: points, and how many snapshots there are."""
    drawn = draw(directory, max_points, _ALL)
    return drawn.points, drawn.total


def draw(
    directory: Path, max_points: int, selection: Selection, *, with_buckets: bool = False
) -> Drawn:
    """At most `max_points` snapshots by step, and how many there are in all.

    Of snapshots with very many numbers there are fewer: MAX_BYTES of them at most.
    The last and the first snapshot stay, and for each series its last, first,
    lowest and highest point. The rest are the lowest and the highest points
    of equal parts of the curve, for each series the same number, and others from
    all of the curve: there are `max_points`, or all. Where `max_points` is too
    small for the ends and extremes of all series, the loss comes first, then the
    others by their first appearance. With keys, points have those numbers alone,
    and snapshots without any are none.

    Time and memory are those of one record per BLOCK snapshots and of
    `max_points`, if the blocks are there. Blocks.
    """
    with MetricsReader(directory) as reader:
        total = reader.last()
        if not selection.keys:
            size = reader.locate(total).position
            max_points = min(max_points, max(MAX_BYTES * total // max(size, 1), 1))
        curve = Curve(directory, reader, total, selection)
        count, spans = curve.count(most=max_points)
        if count <= max_points:
            snapshots: Iterable[MetricsSnapshot | None] = curve.within(spans)
        else:
            snapshots = (reader.at(place) for place in curve.choose(max_points, count=count))
        found = [
            point for each in snapshots if each is not None for point in _named(each, selection)
        ]
        points = list(_fitting(found))
        buckets = None
        if with_buckets and (count > max_points or len(points) < len(found)):
            buckets = _buckets(curve, max_points, count=count)
    points.sort(key=lambda point: point.step)
    return Drawn(points, count, buckets)


def _named(snapshot: MetricsSnapshot, selection: Selection) -> Iterator[MetricsSnapshot]:
    """A snapshot with the numbers that are asked for; nothing if it has none of them."""
    if not selection.keys:
        yield snapshot
    elif named := named_numbers(snapshot, selection.keys):
        yield named


def _fitting(snapshots: Iterable[MetricsSnapshot]) -> Iterator[MetricsSnapshot]:
    """Those that come first and have MAX_BYTES together; at least one."""
    size = 0
    for snapshot in snapshots:
        size += snapshot.ByteSize()
        if size > MAX_BYTES and size > snapshot.ByteSize():
            return
        yield snapshot


def _buckets(curve: Curve, max_points: int, *, count: int) -> list[MetricsBucket]:
    """The extremes of each series in equal parts of the curve, by key and step; as many parts as
    points, or as fit into an answer."""
    size = sum(len(name.encode()) + _BUCKET for name in curve.names())
    parts = max(min(max_points, MAX_BUCKET_BYTES // max(size, 1), count), 1)
    found = [
        MetricsBucket(
            key=name,
            from_step=int(part[STEPS].low),
            to_step=int(part[STEPS].high),
            minimum=series.low,
            maximum=series.high,
        )
        for part in curve.equal_parts(parts, count=count, most=MAX_SERIES + 1)
        if STEPS in part
        for name, series in curve.selection.series(part).items()
        if series.low_at >= 0
    ]
    found.sort(key=lambda bucket: (bucket.key, bucket.from_step))
    return found
