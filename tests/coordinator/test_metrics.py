"""Metrics: what a process writes as snapshots."""

import math
from pathlib import Path

import pytest

from app.coordinator.metrics import BadMetrics, MetricsReader, MetricsWriter, parse_snapshot
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot


def test_names_that_the_contract_knows() -> None:
    snapshot = parse_snapshot(
        b'{"step": 3, "epoch": 1, "train_loss": 0.5, "lr": 0.1, "grad_norm": 2,'
        b' "gpu_memory_bytes": 9007199254740993, "eval_accuracy": 0.25, "mine": 7,'
        b' "text": "left out", "flag": true}'
    )
    assert snapshot == MetricsSnapshot(
        step=3,
        epoch=1,
        loss=0.5,
        learning_rate=0.1,
        grad_norm=2,
        gpu_memory_bytes=9007199254740993,
        eval_metrics={"eval_accuracy": 0.25},
        extra={"mine": 7},
    )


def test_numbers_that_are_not_finite_are_kept() -> None:
    snapshot = parse_snapshot(b'{"step": 1, "loss": NaN, "x": -Infinity}')
    assert math.isnan(snapshot.loss)
    assert snapshot.extra["x"] == -math.inf


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"loss": 1}', "no number 'step'"),
        (b'{"step": "1"}', "no number 'step'"),
        (b'{"step": NaN}', "no number 'step'"),
        (b'{"step": 1e300}', "no number 'step'"),
        (b'{"step": 1, "gpu_memory_bytes": 1e300}', "out of range"),
        (b"\xff", "not JSON"),
    ],
)
def test_lines_that_are_no_snapshots(raw: bytes, problem: str) -> None:
    with pytest.raises(BadMetrics, match=problem):
        parse_snapshot(raw)


def test_sequences_go_on_after_the_file_was_cut(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.append([MetricsSnapshot(step=step) for step in range(10)])
    writer.close()
    file = tmp_path / "snapshots"
    file.write_bytes(file.read_bytes()[:-1])
    writer = MetricsWriter(tmp_path)
    assert writer.last_sequence == 9
    writer.append([MetricsSnapshot(step=100)])
    writer.close()
    with MetricsReader(tmp_path) as reader:
        newest = reader.newest()
    assert newest is not None
    assert (newest.sequence, newest.step) == (10, 100)
