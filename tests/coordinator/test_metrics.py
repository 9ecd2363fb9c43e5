"""Metrics: what a process writes as snapshots."""

import errno
import json
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.bridge.converters import metrics_snapshot
from app.coordinator.jobs.model import Progress
from app.coordinator.metrics import blocks
from app.coordinator.metrics.line import MAX_LINE, BadLine, Fault, parse_snapshot
from app.coordinator.metrics.metrics_file import LAST_LOOK, LOOK, MetricsFile
from app.coordinator.metrics.snapshots import MetricsReader, MetricsWriter, progress_of
from app.coordinator.storage.records import MAX_PAYLOAD
from generated.mindcoordinator.v1.jobs_pb2 import JobProgress
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot


def whole(raw: bytes) -> MetricsSnapshot:
    """The snapshot of a line of which nothing is left out."""
    snapshot, faults = parse_snapshot(raw)
    assert not faults
    return snapshot


def test_names_that_the_contract_knows() -> None:
    snapshot = whole(
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
    snapshot = whole(b'{"step": 1, "loss": NaN, "x": -Infinity}')
    assert math.isnan(snapshot.loss)
    assert snapshot.extra["x"] == -math.inf


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"{", Fault.NOT_JSON),
        (b"\xff", Fault.NOT_JSON),
        ('{"step": 1}'.encode("utf-16"), Fault.NOT_JSON),
        (b"[" * 100_000, Fault.NOT_JSON),
        (b"[1]", Fault.NOT_AN_OBJECT),
        (b"[" * 2_000 + b"]" * 2_000, Fault.NOT_AN_OBJECT),
        (b'{"loss": 1}', Fault.NO_STEP),
        (b'{"step": "1"}', Fault.NO_STEP),
        (b'{"step": true}', Fault.NO_STEP),
        (b'{"step": NaN}', Fault.BAD_STEP),
        (b'{"step": 1e300}', Fault.BAD_STEP),
        (b'{"step": 9007199254740992}', Fault.BAD_STEP),
        (b'{"step": ' + b"1" * 401 + b"}", Fault.BAD_STEP),
        (b'{"step": ' + b"9" * 308 + b"}", Fault.BAD_STEP),
        (b'{"step": ' + b"9" * 309 + b"}", Fault.BAD_STEP),
        (b'{"step": -' + b"1" * 5_000 + b"}", Fault.BAD_STEP),
        (b'{"step": 1}' + b" " * MAX_LINE, Fault.TOO_LONG),
    ],
)
def test_lines_that_are_no_snapshots(raw: bytes, fault: Fault) -> None:
    with pytest.raises(BadLine) as caught:
        parse_snapshot(raw)
    assert caught.value.fault is fault


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        (b'"total_steps": NaN', Fault.BAD_TOTAL),
        (b'"total_steps": Infinity', Fault.BAD_TOTAL),
        (b'"total_steps": 1e30', Fault.BAD_TOTAL),
        (b'"total_steps": -1e19', Fault.BAD_TOTAL),
        (b'"total_steps": %d' % sys.maxsize, Fault.BAD_TOTAL),
        (b'"total_steps": ' + b"1" * 5_000, Fault.BAD_TOTAL),
        (b'"total_steps": ' + b"9" * 309, Fault.BAD_TOTAL),
        (b'"gpu_memory_bytes": ' + b"9" * 308, Fault.BAD_MEMORY),
        (b'"gpu_memory_bytes": 1e300', Fault.BAD_MEMORY),
        (b'"gpu_memory_bytes": -1', Fault.BAD_MEMORY),
        (b'"gpu_memory_bytes": NaN', Fault.BAD_MEMORY),
        (b'"lr": ' + b"1" * 401, Fault.TOO_LARGE),
        (b'"mine": -' + b"1" * 309, Fault.TOO_LARGE),
        (b'"mine": ' + b"[" * 2_000 + b"]" * 2_000, Fault.TOO_DEEP),
        (b'"mine": ' + b'{"x":[' * 500 + b'"]\\""' + b"]}" * 500, Fault.TOO_DEEP),
    ],
)
def test_a_part_that_cannot_be_kept_does_not_cost_the_rest(part: bytes, fault: Fault) -> None:
    snapshot, faults = parse_snapshot(b'{"step": 1, ' + part + b', "loss": 0.5}')
    assert faults == {fault}
    assert snapshot == MetricsSnapshot(step=1, loss=0.5)


def test_what_is_nested_a_little_is_no_number_and_no_fault() -> None:
    assert whole(b'{"step": 1, "x": ' + b"[" * 63 + b"]" * 63 + b"}") == MetricsSnapshot(step=1)
    wide = b",".join([b"[[1]]"] * 500)
    assert whole(b'{"step": 1, "x": [' + wide + b'], "loss": 2}') == MetricsSnapshot(step=1, loss=2)


def test_names_can_be_stored_and_shown() -> None:
    snapshot, faults = parse_snapshot(
        b'{"step": 1, "\\ud800": 1, "a\\nb": 2, "": 3, "%s": 4}' % (b"x" * 1000)
    )
    assert faults == {Fault.BAD_NAME}
    assert dict(snapshot.extra) == {
        "\N{REPLACEMENT CHARACTER}": 3,
        "a\N{REPLACEMENT CHARACTER}b": 2,
    } | {"x" * 128: 4}


def test_a_snapshot_has_256_names() -> None:
    line = {"step": 1} | {f"name-{at}": at for at in range(1000)}
    snapshot, faults = parse_snapshot(orjson.dumps(line))
    assert faults == {Fault.TOO_MANY}
    assert len(snapshot.extra) == 256


@pytest.mark.parametrize("total", [math.nan, math.inf, -math.inf, 1e30, -1e19, float(sys.maxsize)])
def test_progress_of_a_snapshot_that_an_earlier_coordinator_admitted(total: float) -> None:
    before = Progress(step=1, total_steps=10, epoch=0.5, loss=1.0)
    snapshot = MetricsSnapshot(step=2**63 - 1, epoch=math.inf, extra={"total_steps": total})
    assert progress_of(snapshot, before) == Progress(2**53 - 1, 10, 0.5, 1.0)


def test_a_loss_that_is_not_a_number_is_no_news_forever() -> None:
    first, second = (progress_of(whole(b'{"step": 1, "loss": NaN}'), Progress()) for _ in range(2))
    assert first == second


numbers = (
    st.integers()
    | st.integers(2**52, 2**65)
    | st.integers(10**300, 10**320)
    | st.floats()
    | st.booleans()
    | st.none()
)
values = st.recursive(
    numbers | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
NAMES = ("step", "total_steps", "epoch", "loss", "lr", "gpu_memory_bytes", "eval_x", "\ud800", "\0")
lines = st.dictionaries(st.sampled_from(NAMES) | st.text(), values).map(
    lambda value: json.dumps(value).encode()
)


@settings(settings.get_profile("often"))
@given(st.binary(max_size=1000) | lines)
@example(b'{"step": 1, "\xff": 1}')
@example(b"[\0" * 5_000)
@example(b'"' + b"\\" * 10_001)
@example(b'{"step": 1, "' + "\N{GRINNING FACE}".encode() * 200 + b'": 1}')
@example(b'{"step":1,' + b",".join(b'"\\u0001%d":1' % at for at in range(400)) + b"}")
@example(
    orjson.dumps({"step": 1} | {f"{at:03}" + "\N{GRINNING FACE}" * 125: 1 for at in range(300)})
)
def test_any_line_is_a_snapshot_that_can_be_stored_and_told_or_none(raw: bytes) -> None:
    try:
        snapshot, _ = parse_snapshot(raw)
    except BadLine:
        return
    assert len(snapshot.SerializeToString()) < MAX_PAYLOAD
    orjson.dumps(metrics_snapshot(snapshot))
    progress = progress_of(snapshot, Progress())
    orjson.dumps(progress)
    JobProgress(
        step=progress.step * 1000,
        total_steps=progress.total_steps * 1000,
        epoch=progress.epoch,
        loss=progress.loss,
    )


def as_bytes(batches: Iterable[list[MetricsSnapshot]]) -> list[bytes]:
    """Snapshots as they compare, those without a number included."""
    return [each.SerializeToString(deterministic=True) for batch in batches for each in batch]


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=100) | lines, max_size=20), st.data())
def test_any_file_is_read_in_pieces_as_it_is_read_at_once(
    written: list[bytes], data: st.DataObject
) -> None:
    content = b"\n".join(written)
    path = Path(f"/dev/shm/metrics-{os.getpid()}")
    try:
        path.write_bytes(b"")
        file = MetricsFile(path)
        found = []
        at = 0
        while at < len(content):
            size = data.draw(st.integers(1, len(content) - at))
            with open(path, "ab") as growing:
                growing.write(content[at : at + size])
            at += size
            found += list(file.batches())
        found += list(file.batches(last=True))
        at_once = MetricsFile(path)
        assert as_bytes(found) == as_bytes(at_once.batches(last=True))
        assert sorted(file.take_problems()) == sorted(at_once.take_problems())
    finally:
        path.unlink()


def read(path: Path, **how: Any) -> tuple[list[int], list[str]]:
    file = MetricsFile(path)
    steps = [each.step for batch in file.batches(**how) for each in batch]
    return steps, file.take_problems()


def test_a_line_that_is_too_long_is_left_out_as_a_whole_and_said_once(tmp_path: Path) -> None:
    long = b" " * (3 * 1024 * 1024) + b'{"step": 2}\n'
    (tmp_path / "m").write_bytes(b'{"step": 1}\n' + long + b'{"step": 3}\n' + long + b'{"step": 4}')
    assert read(tmp_path / "m", last=True) == (
        [1, 3, 4],
        ["A line of the metrics file is left out: it has more than 1048576 bytes."],
    )


def test_each_kind_of_problem_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "m").write_text(
        '{"step": 1, "total_steps": NaN}\nx\n{"step": 2, "total_steps": 1e30}\ny\n{"loss": 1}\n'
    )
    steps, problems = read(tmp_path / "m")
    assert steps == [1, 2]
    assert len(problems) == 3
    assert problems[0].startswith("Part of a line of the metrics file is left out: 'total_steps'")
    assert problems[1] == "A line of the metrics file is left out: it is not JSON."
    assert problems[2] == "A line of the metrics file is left out: it has no number 'step'."


def test_one_look_at_a_file_with_a_hole_of_a_tebibyte_ends(tmp_path: Path) -> None:
    with open(tmp_path / "m", "wb") as file:
        file.write(b'{"step": 1}\n')
        file.truncate(1024**4)
    looks = MetricsFile(tmp_path / "m")
    assert [len(batch) for batch in looks.batches()] == [1, *[0] * (LOOK.size // 1024**2 - 1)]
    assert len(looks.take_problems()) == 1
    assert read(tmp_path / "m", last=True) == (
        [1],
        [
            "A line of the metrics file is left out: it has more than 1048576 bytes.",
            f"The metrics file is not read behind its byte {LAST_LOOK.size}.",
        ],
    )


def test_one_look_at_very_many_lines_ends(tmp_path: Path) -> None:
    with open(tmp_path / "m", "wb") as file:
        file.write(b"0\n" * 2 * LOOK.lines + b" " * (2 * 1024**2) + b'\n{"step": 1}\n')
    looks = MetricsFile(tmp_path / "m")
    assert [len(batch) for batch in looks.batches()] == [0]
    assert sum(len(batch) for batch in looks.batches()) == 1


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_is_no_file_is_said_once_and_raises_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m"
    match kind:
        case "link":
            path.symlink_to("/etc/passwd")
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    file = MetricsFile(path)
    for _ in range(2):
        assert not any(file.batches())
    (problem,) = file.take_problems()
    assert problem.startswith("The metrics file cannot be read: ")


def test_a_file_that_becomes_shorter_is_read_on_behind_its_old_end(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text('{"step": 1}\n' * 3)
    file = MetricsFile(path)
    assert sum(len(batch) for batch in file.batches()) == 3
    path.write_text('{"step": 2}\n')
    assert not any(file.batches())
    path.write_text('{"step": 1}\n' * 4)
    assert sum(len(batch) for batch in file.batches()) == 1


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


def test_metrics_that_cannot_be_opened_leave_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(blocks, "_open", refused)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Too many open files"):
        MetricsWriter(tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before
