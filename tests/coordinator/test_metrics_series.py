"""Fewer points of a long curve: what matters stays, however the files were cut."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.coordinator.errors import InvalidArgument
from app.coordinator.metrics import blocks as metrics_blocks
from app.coordinator.metrics import curve as metrics_curve
from app.coordinator.metrics import downsampling as metrics_series
from app.coordinator.metrics.blocks import count_blocks, read_blocks, series_of
from app.coordinator.metrics.downsampling import downsample, job_metrics
from app.coordinator.metrics.snapshots import MetricsReader, MetricsWriter
from app.coordinator.storage import journal_writer
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.locks import locked
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest, MetricsSnapshot
from tests.coordinator.reads import Reads

#: Each snapshot has some of the series: holes everywhere.
VALUES = st.floats() | st.integers(-3, 3).map(float)
SNAPSHOT = st.builds(
    MetricsSnapshot,
    step=st.integers(0, 100),
    loss=st.none() | VALUES,
    gpu_memory_bytes=st.none() | st.integers(0, 5),
    eval_metrics=st.dictionaries(st.sampled_from(["eval_loss", "eval_x"]), VALUES),
    extra=st.dictionaries(st.sampled_from(["a", "b"]), VALUES),
)
SNAPSHOTS = st.lists(SNAPSHOT, max_size=60)
#: So many that those of two series leave some out.
MANY = st.lists(SNAPSHOT, min_size=25, max_size=60)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few snapshots, so that a short curve has many of them."""
    monkeypatch.setattr(journal_writer, "BLOCK_RECORDS", 3)
    # And is drawn of them alone.
    monkeypatch.setattr(metrics_curve, "FEW", 0)
    monkeypatch.setattr(metrics_series, "FEW", 0)
    for module in (metrics_blocks, metrics_curve, metrics_series):
        monkeypatch.setattr(module, "BLOCK", 4)


def write(path: Path, snapshots: Sequence[MetricsSnapshot], *, batch: int = 7) -> None:
    writer = MetricsWriter(path)
    for at in range(0, len(snapshots), batch):
        writer.append(list(snapshots[at : at + batch]))
    writer.close()


def everything(path: Path) -> list[MetricsSnapshot]:
    with MetricsReader(path) as reader:
        return [snapshot for snapshot, _ in reader.places(after=0)]


def series(snapshots: Iterable[MetricsSnapshot]) -> dict[str, list[tuple[int, float]]]:
    """Sequence numbers and values by name, told without the code under test."""
    found: dict[str, list[tuple[int, float]]] = {}
    for snapshot in snapshots:
        numbers = {**snapshot.eval_metrics, **snapshot.extra}
        for name in ("loss", "gpu_memory_bytes"):
            if snapshot.HasField(name):
                numbers[name] = getattr(snapshot, name)
        for name, value in numbers.items():
            found.setdefault(name, []).append((snapshot.sequence, value))
    return found


def check(points: Sequence[MetricsSnapshot], snapshots: Sequence[MetricsSnapshot]) -> None:
    """The points keep the ends and the extremes of every series of the snapshots."""
    numbers = {point.sequence for point in points}
    kept = series(points)
    assert {1, len(snapshots)} <= numbers
    for name, curve in series(snapshots).items():
        assert {curve[0][0], curve[-1][0]} <= numbers, name
        if finite := [value for _, value in curve if math.isfinite(value)]:
            values = [value for _, value in kept[name]]
            assert min(finite) in values, name
            assert max(finite) in values, name


def test_the_order_of_series_does_not_depend_on_how_a_map_was_filled() -> None:
    names = [f"series-{at:02}" for at in range(30)]
    for filled in (names, names[::-1]):
        snapshot = MetricsSnapshot(extra=dict.fromkeys(filled, 1.0))
        assert [name for name, _ in series_of(snapshot)] == names


def texts(snapshots: Iterable[MetricsSnapshot]) -> list[bytes]:
    """What can be compared: NaN does not equal itself."""
    return [snapshot.SerializeToString(deterministic=True) for snapshot in snapshots]


@given(snapshots=SNAPSHOTS | MANY, limit=st.integers(1, 40), batch=st.integers(1, 9))
def test_the_ends_and_the_extremes_of_every_series_stay(
    snapshots: list[MetricsSnapshot], limit: int, batch: int
) -> None:
    with TemporaryDirectory() as folder:
        write(Path(folder), snapshots, batch=batch)
        points, total = downsample(Path(folder), limit)
        written = everything(Path(folder))
        assert total == len(snapshots) == len(written)
        assert len(points) == min(limit, total)
        assert set(texts(points)) <= set(texts(written))
        assert len({point.sequence for point in points}) == len(points)
        assert [point.step for point in points] == sorted(point.step for point in points)
        if total > limit and limit >= 2 + 4 * len(series(written)):
            check(points, written)
        elif total > limit:
            assert total in {point.sequence for point in points}


@given(snapshots=MANY, batch=st.integers(1, 9), data=st.data())
def test_so_do_they_where_nothing_else_finds_room(
    snapshots: list[MetricsSnapshot], batch: int, data: st.DataObject
) -> None:
    """A series alone, with as many points as it needs."""
    for sequence, snapshot in enumerate(snapshots, 1):
        snapshot.sequence = sequence
    curves = series(snapshots)
    values = dict(curves[data.draw(st.sampled_from(sorted(curves)))] if curves else [])
    alone = [
        MetricsSnapshot(extra={"alone": values[at]} if at in values else {})
        for at in range(1, len(snapshots) + 1)
    ]
    with TemporaryDirectory() as folder:
        write(Path(folder), alone, batch=batch)
        points, _ = downsample(Path(folder), 6)
        assert len(points) <= 6
        check(points, everything(Path(folder)))


@given(snapshots=MANY, more=SNAPSHOTS, limit=st.integers(1, 15), data=st.data())
def test_files_cut_anywhere_give_the_answer_of_what_is_left(
    snapshots: list[MetricsSnapshot],
    more: list[MetricsSnapshot],
    limit: int,
    data: st.DataObject,
) -> None:
    with TemporaryDirectory() as folder, TemporaryDirectory() as other:
        path, fresh = Path(folder), Path(other)
        write(path, snapshots)
        for name in ("snapshots", "snapshots.index", "blocks", "blocks.index"):
            size = (path / name).stat().st_size
            # As it is, gone, or cut somewhere.
            left = data.draw(st.just(size) | st.integers(0, size), label=name)
            with open(path / name, "r+b") as file:
                file.truncate(left)
        left_over = everything(path)
        write(fresh, left_over)
        # Before a writer has mended anything, and after it.
        for added in ([], more):
            points, total = downsample(path, limit)
            expected, expected_total = downsample(fresh, limit)
            assert texts(points) == texts(expected)
            assert total == expected_total
            write(path, added)
            write(fresh, added)
        whole = len(everything(path))
        assert list(read_blocks(path, snapshots=whole)) == list(read_blocks(fresh, snapshots=whole))
        assert count_blocks(path) == whole // 4


def test_a_writer_that_is_killed_leaves_what_the_next_one_mends(tmp_path: Path) -> None:
    """SIGKILL at moments of the system's choice, five times on the same files."""
    program = """
import sys
from pathlib import Path
from app.coordinator.metrics.snapshots import MetricsWriter
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot
writer = MetricsWriter(Path(sys.argv[1]))
print(writer.last_sequence, flush=True)
while True:
    step = writer.last_sequence
    writer.append([MetricsSnapshot(step=step, loss=(step * 7919) % 1009) for _ in range(5)])
"""
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        ) as process:
            assert process.stdout is not None
            before = int(process.stdout.readline())
            snapshots = tmp_path / "snapshots"
            size = snapshots.stat().st_size
            while snapshots.stat().st_size < size + 50_000:
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        points, total = downsample(tmp_path, 50)
        written = everything(tmp_path)
        assert total == len(written) > before
        assert [snapshot.sequence for snapshot in written] == list(range(1, total + 1))
        check(points, written)


def test_a_curve_is_drawn_of_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long curve a few hundredths are read, with the blocks' real size."""
    monkeypatch.undo()
    count = 80_000
    writer = MetricsWriter(tmp_path)
    for start in range(0, count, 4000):
        writer.append(
            [
                MetricsSnapshot(step=step, loss=step * 7919 % 100_003, extra={"steady": 0.5})
                for step in range(start, start + 4000)
            ]
        )
    writer.close()
    reads = Reads(monkeypatch)
    points, total = downsample(tmp_path, 20)
    monkeypatch.undo()
    assert total == count
    check(points, everything(tmp_path))
    assert 0 < reads.size < (tmp_path / "snapshots").stat().st_size / 10


@pytest.mark.parametrize("wanted", [100, 1000])
def test_a_longer_curve_has_no_fewer_points_and_reads_little_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int
) -> None:
    """With the blocks' real size."""
    monkeypatch.undo()
    read: list[int] = []
    for count in (1_001, 2_048, 2_049, 6_000, 20_000, 32_768, 32_769):
        path = tmp_path / str(count)
        steps = range(count)
        write(path, [MetricsSnapshot(step=n, loss=n * 7919 % 997) for n in steps], batch=4000)
        reads = Reads(monkeypatch)
        points, total = downsample(path, wanted)
        monkeypatch.undo()
        assert (len(points), total) == (wanted, count)
        read.append(reads.size)
    # Bytes: what is chosen is read one by one, with what lies behind it; the rest is looked for.
    blocks = sum((tmp_path / f"32769/{name}").stat().st_size for name in ("blocks", "snapshots"))
    assert max(read) <= 2 * wanted * 4096 + 2 * blocks


def test_missing_blocks_of_a_job_that_has_ended_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_series, "FEW", 16)
    directory = JobDir(tmp_path)
    write(directory.metrics, [MetricsSnapshot(step=step, loss=step) for step in range(100)])

    def ask(*, ended: bool) -> int:
        for name in ("blocks", "blocks.index"):
            (directory.metrics / name).unlink(missing_ok=True)
        request = GetJobMetricsRequest(job_id="x", max_points=10)
        answer = job_metrics(directory, request, ended=ended)
        assert (answer.job_id, answer.total_points) == ("x", 100)
        assert 4 < len(answer.points) <= 10
        return count_blocks(directory.metrics)

    assert ask(ended=False) == 0
    with locked(directory.lock, wait=False):
        assert ask(ended=True) == 0
    assert ask(ended=True) == 25


def test_an_answer_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {f"layer_{number}": float(number) for number in range(200)}
    write(tmp_path, [MetricsSnapshot(step=step, loss=step, extra=extra) for step in range(100)])
    assert len(downsample(tmp_path, 1000)[0]) == 100
    size = (tmp_path / "snapshots").stat().st_size
    monkeypatch.setattr(metrics_series, "MAX_BYTES", size // 10)
    points, total = downsample(tmp_path, 1000)
    assert total == 100
    assert (points[0].step, points[-1].step) == (0, 99)
    assert len(points) <= 10


@pytest.mark.parametrize("wanted", [-1, 10_001])
def test_more_points_than_may_be_asked_for(tmp_path: Path, wanted: int) -> None:
    with pytest.raises(InvalidArgument, match="max_points: must be from 0 to 10000"):
        job_metrics(JobDir(tmp_path), GetJobMetricsRequest(max_points=wanted), ended=False)


def test_a_series_that_comes_late_and_rarely_stays_whole_enough(tmp_path: Path) -> None:
    """Evaluations at every thousandth step are drawn with points of their own."""
    writer = MetricsWriter(tmp_path)
    for start in range(0, 60_000, 1000):
        snapshots = [MetricsSnapshot(step=start + at, loss=at % 13) for at in range(1000)]
        snapshots[-1].eval_metrics["eval_loss"] = 60_000 - start
        writer.append(snapshots)
    writer.close()
    points, _ = downsample(tmp_path, 200)
    check(points, everything(tmp_path))
    assert sum(1 for point in points if point.eval_metrics) > 25
