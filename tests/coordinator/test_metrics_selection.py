"""Part of a job's metrics: some numbers, some steps, and what lies between the points."""

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.coordinator.errors import InvalidArgument
from app.coordinator.metrics import blocks as metrics_blocks
from app.coordinator.metrics import curve as metrics_curve
from app.coordinator.metrics import downsampling
from app.coordinator.metrics.blocks import count_blocks, have_steps, series_of
from app.coordinator.metrics.curve import Selection
from app.coordinator.metrics.downsampling import draw, job_metrics
from app.coordinator.metrics.snapshots import MetricsWriter
from app.coordinator.storage import journal_writer
from app.coordinator.storage.job_directory import JobDir
from generated.mindcoordinator.v1.watch_pb2 import (
    GetJobMetricsRequest,
    MetricsBucket,
    MetricsSnapshot,
)
from tests.coordinator.reads import Reads
from tests.coordinator.test_metrics_series import SNAPSHOTS, everything, texts, write

STEP = st.none() | st.integers(0, 100)
NAMES = ("loss", "eval_loss", "a", "b", "gpu_memory_bytes", "unknown")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few snapshots, so that a short curve has many of them and is drawn of them."""
    monkeypatch.setattr(journal_writer, "BLOCK_RECORDS", 3)
    for module in (metrics_curve, downsampling):
        monkeypatch.setattr(module, "FEW", 0)
    for module in (metrics_blocks, metrics_curve, downsampling):
        monkeypatch.setattr(module, "BLOCK", 4)


def without_steps(path: Path) -> None:
    """Make the blocks what an earlier coordinator wrote."""
    records = metrics_blocks.read_blocks(path, snapshots=10**6)
    parts = [{name: each for name, each in part.items() if name} for part in records]
    for name in ("blocks", "blocks.index"):
        (path / name).unlink()
    journal = metrics_blocks._open(path / "blocks")
    journal.append([(0, metrics_blocks._encode(part)) for part in parts])
    journal.close()


def selected(snapshots: Sequence[MetricsSnapshot], selection: Selection) -> list[MetricsSnapshot]:
    """What is asked for of them, told without the code under test."""
    return [
        snapshot
        for snapshot in snapshots
        if (selection.from_step is None or snapshot.step >= selection.from_step)
        and (selection.to_step is None or snapshot.step <= selection.to_step)
    ]


def values(snapshot: MetricsSnapshot, keys: frozenset[str]) -> dict[str, float]:
    return {name: value for name, value in series_of(snapshot) if not keys or name in keys}


@given(
    snapshots=SNAPSHOTS,
    keys=st.frozensets(st.sampled_from(NAMES)),
    from_step=STEP,
    to_step=STEP,
    limit=st.integers(1, 40),
    older=st.booleans(),
)
def test_points_are_of_the_numbers_and_steps_that_are_asked_for(
    snapshots: list[MetricsSnapshot],
    keys: frozenset[str],
    from_step: int | None,
    to_step: int | None,
    limit: int,
    older: bool,
) -> None:
    selection = Selection(keys=keys, from_step=from_step, to_step=to_step)
    with TemporaryDirectory() as folder:
        path = Path(folder)
        write(path, snapshots)
        if older:
            without_steps(path)
        written = selected(everything(path), selection)
        drawn = draw(path, limit, selection, with_buckets=True)
    assert drawn.total == len(written)
    assert len(drawn.points) <= limit
    assert [point.step for point in drawn.points] == sorted(point.step for point in drawn.points)
    by_sequence = {snapshot.sequence: snapshot for snapshot in written}
    for point in drawn.points:
        known = by_sequence.pop(point.sequence)
        assert (point.step, point.timestamp) == (known.step, known.timestamp)
        assert repr(values(point, frozenset())) == repr(values(known, keys))
    there = [snapshot for snapshot in written if not keys or values(snapshot, keys)]
    names = {name for snapshot in there for name in values(snapshot, keys)}
    if len(written) <= limit:
        assert len(drawn.points) == len(there)
        assert drawn.buckets is None
        return
    if limit >= 2 + 4 * len(names):
        check_ends_and_extremes(drawn.points, there, keys)
    assert drawn.buckets is not None
    check_buckets(drawn.buckets, there, keys)


def check_ends_and_extremes(
    points: Sequence[MetricsSnapshot], snapshots: Sequence[MetricsSnapshot], keys: frozenset[str]
) -> None:
    kept = {point.sequence for point in points}
    for name in {name for snapshot in snapshots for name in values(snapshot, keys)}:
        curve = [
            (snapshot.sequence, values(snapshot, keys)[name])
            for snapshot in snapshots
            if name in values(snapshot, keys)
        ]
        assert {curve[0][0], curve[-1][0]} <= kept
        if finite := [value for _, value in curve if math.isfinite(value)]:
            drawn = [dict(series_of(point)).get(name) for point in points]
            assert {min(finite), max(finite)} <= set(drawn)


def check_buckets(
    buckets: Sequence[MetricsBucket], snapshots: Sequence[MetricsSnapshot], keys: frozenset[str]
) -> None:
    """Every finite value lies in a bucket, and every bucket's ends are values of its steps."""
    assert [(bucket.key, bucket.from_step) for bucket in buckets] == sorted(
        (bucket.key, bucket.from_step) for bucket in buckets
    )
    by_key: dict[str, list[MetricsBucket]] = {}
    for bucket in buckets:
        by_key.setdefault(bucket.key, []).append(bucket)
    found: dict[str, list[tuple[int, float]]] = {}
    for snapshot in snapshots:
        for name, value in values(snapshot, keys).items():
            if math.isfinite(value):
                found.setdefault(name, []).append((snapshot.step, value))
    assert by_key.keys() == found.keys()
    for name, points in found.items():
        for step, value in points:
            assert any(
                bucket.from_step <= step <= bucket.to_step
                and bucket.minimum <= value <= bucket.maximum
                for bucket in by_key[name]
            )
        for bucket in by_key[name]:
            within = [v for step, v in points if bucket.from_step <= step <= bucket.to_step]
            assert {bucket.minimum, bucket.maximum} <= set(within)


def test_a_curve_that_is_looked_at_closer_has_all_its_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the blocks' real size; of the rest little is read."""
    monkeypatch.undo()
    count = 80_000
    writer = MetricsWriter(tmp_path)
    for start in range(0, count, 4000):
        # A run that went back by a thousand steps goes on.
        first = start - 1000 * (start // 20_000)
        writer.append(
            [MetricsSnapshot(step=first + at, loss=at % 97, extra={"a": 1}) for at in range(4000)]
        )
    writer.close()
    reads = Reads(monkeypatch)
    drawn = draw(tmp_path, 1000, Selection(from_step=40_100, to_step=40_500))
    assert drawn.total == len(drawn.points) == 401
    assert reads.size < (tmp_path / "snapshots").stat().st_size / 2
    twice = draw(tmp_path, 1000, Selection(from_step=19_500, to_step=19_599))
    assert [point.step for point in twice.points] == sorted([*range(19_500, 19_600)] * 2)
    none = draw(tmp_path, 1000, Selection(from_step=10**6))
    assert (none.points, none.total) == ([], 0)


def test_a_number_that_is_rare_is_drawn_alone(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    snapshots = [MetricsSnapshot(step=step, loss=step % 13) for step in range(500)]
    for snapshot in snapshots[9::10]:
        snapshot.eval_metrics["eval_loss"] = snapshot.step
    writer.append(snapshots)
    writer.close()
    drawn = draw(tmp_path, 60, Selection(keys=frozenset({"eval_loss"})))
    assert [point.step for point in drawn.points] == list(range(9, 500, 10))
    assert not any(point.HasField("loss") for point in drawn.points)


def test_buckets_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {f"layer_{number}": float(number) for number in range(50)}
    write(tmp_path, [MetricsSnapshot(step=step, extra=extra) for step in range(400)])
    monkeypatch.setattr(downsampling, "MAX_BUCKET_BYTES", 20_000)
    drawn = draw(tmp_path, 300, Selection(), with_buckets=True)
    assert drawn.buckets
    assert sum(bucket.ByteSize() for bucket in drawn.buckets) < 20_000
    assert {bucket.key for bucket in drawn.buckets} == set(extra)
    assert drawn.buckets[0].from_step == 0
    assert drawn.buckets[-1].to_step == 399


def test_blocks_of_an_earlier_coordinator_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = JobDir(tmp_path)
    write(directory.metrics, [MetricsSnapshot(step=step, loss=step) for step in range(100)])
    without_steps(directory.metrics)
    assert not have_steps(directory.metrics)
    request = GetJobMetricsRequest(job_id="x", max_points=10, from_step=5, to_step=90)
    before = job_metrics(directory, request, ended=False)
    assert not have_steps(directory.metrics)
    # When the job has ended, by who asks first; otherwise by its next run.
    assert job_metrics(directory, request, ended=True) == before
    assert have_steps(directory.metrics)
    assert count_blocks(directory.metrics) == 25
    without_steps(directory.metrics)
    MetricsWriter(directory.metrics).close()
    assert have_steps(directory.metrics)
    assert texts(job_metrics(directory, request, ended=False).points) == texts(before.points)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (GetJobMetricsRequest(keys=["a"] * 289), "keys: must be at most 288"),
        (GetJobMetricsRequest(keys=["a", ""]), "keys: must not be empty"),
        (GetJobMetricsRequest(from_step=5, to_step=4), "to_step: must not be below from_step"),
        (
            GetJobMetricsRequest(max_points=-1, from_step=5, to_step=4),
            "max_points: must be from 0 to 10000; to_step: must not be below from_step",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, request_: GetJobMetricsRequest, message: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        job_metrics(JobDir(tmp_path), request_, ended=False)
    assert str(refused.value) == message


def test_points_without_buckets_say_so(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    write(directory.metrics, [MetricsSnapshot(step=step, loss=step) for step in range(100)])
    asked: dict[str, Any] = {"job_id": "x", "with_buckets": True}
    few = job_metrics(directory, GetJobMetricsRequest(**asked, max_points=10), ended=True)
    assert few.HasField("between")
    assert all(bucket.key == "loss" for bucket in few.between.buckets)
    everything_there = job_metrics(directory, GetJobMetricsRequest(**asked), ended=True)
    assert not everything_there.HasField("between")
    plain = job_metrics(directory, GetJobMetricsRequest(max_points=10), ended=True)
    assert not plain.HasField("between")
