"""GetLogMarks: levels by stretches of a log, where runs begin, and what is lost, from the index."""

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.coordinator.engines.local.runner.recording import OWN, RecordBounds, Recorder
from app.coordinator.errors import FailedPrecondition, InvalidArgument
from app.coordinator.logs import log as logs
from app.coordinator.logs import run_starts
from app.coordinator.logs.log import MAX_MESSAGE, LogWriter, class_of_head, class_of_level
from app.coordinator.logs.marks import log_marks
from app.coordinator.service.logs.marks import get_log_marks
from app.coordinator.storage import journal_writer
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.locks import locked
from app.coordinator.storage.records import frame_head
from generated.mindcoordinator.v1.logs_pb2 import GetLogMarksRequest, LogMarks
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel
from tests.coordinator.reads import Reads

UNSPECIFIED, DEBUG, INFO, WARNING, ERROR = LogLevel.values()
LEVELS = st.lists(st.sampled_from([DEBUG, INFO, WARNING, ERROR]), max_size=200)


def write(directory: JobDir, entries: list[LogEntry], *, batch: int = 7) -> None:
    logs.create(directory.log)
    writer = LogWriter(directory.log)
    for at in range(0, len(entries), batch):
        writer.append(entries[at : at + batch])
    writer.close()


def counts(marks: LogMarks) -> list[tuple[int, int, int, int]]:
    return [(each.debug, each.info, each.warning, each.error) for each in marks.buckets]


def check_stretches(marks: LogMarks, last: int) -> None:
    """Buckets lie side by side, and have equal numbers of offsets but for one."""
    at = 1
    sizes = set()
    for each in marks.buckets:
        assert each.first_offset == at
        sizes.add(each.last_offset - each.first_offset + 1)
        at = each.last_offset + 1
    assert at == last + 1
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert (marks.first_offset, marks.last_offset) == (min(last, 1), last)


@given(levels=LEVELS, buckets=st.integers(1, 50), block=st.integers(2, 9), cut=st.booleans())
def test_every_entry_counts_in_its_bucket(
    levels: list[LogLevel.ValueType], buckets: int, block: int, cut: bool
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_writer, "BLOCK_RECORDS", block)
        directory = JobDir(Path(folder))
        write(directory, [LogEntry(level=level, message="x" * level) for level in levels])
        if cut:
            # A writer that was killed has not written down where the last block ends.
            index = directory.log / "entries.index"
            index.write_bytes(index.read_bytes()[: index.stat().st_size // 80 * 40])
        marks = log_marks(directory, buckets=buckets)
        check_stretches(marks, len(levels))
        assert len(marks.buckets) == min(buckets, len(levels))
        for each, found in zip(marks.buckets, counts(marks), strict=True):
            there = levels[each.first_offset - 1 : each.last_offset]
            assert found == tuple(there.count(level) for level in (DEBUG, INFO, WARNING, ERROR))
        assert not marks.missing


@given(
    level=st.sampled_from(LogLevel.values()),
    offset=st.integers(1, 2**53 - 1),
    message=st.text(max_size=20) | st.just("x" * 200) | st.just("x" * 20_000),
)
def test_a_class_is_told_by_the_head_of_a_record(
    level: LogLevel.ValueType, offset: int, message: str
) -> None:
    entry = LogEntry(offset=offset, level=level, message=message)
    payload = entry.SerializeToString()
    record = frame_head(logs.ENTRIES.tag, len(payload)) + payload
    assert class_of_head(record[:32]) == class_of_level(level)


@pytest.mark.parametrize(("count", "size"), [(200_000, 10), (3000, MAX_MESSAGE)])
def test_a_log_is_drawn_from_little_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    random = Random(1)
    directory = JobDir(tmp_path)
    logs.create(directory.log)
    writer = LogWriter(directory.log)
    for _ in range(0, count, 1000):
        levels = random.choices([DEBUG, INFO, WARNING, ERROR], k=1000)
        writer.append([LogEntry(level=level, message="x" * size) for level in levels])
    writer.close()
    # Whoever reads nothing of the log reads no more than this.
    reads = Reads(monkeypatch)
    run_starts.create(directory.log)
    marks = log_marks(directory, buckets=400)
    assert sum(map(sum, counts(marks))) == count
    assert reads.size < 16 * 2**20
    assert reads.size < max((directory.log / "entries").stat().st_size / 4, 12 * 2**20)


def test_what_is_lost_is_told_and_counts_as_nothing(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    write(directory, [LogEntry(level=INFO, message=f"line {n:04}") for n in range(1, 1001)])
    path = directory.log / "entries"
    content = path.read_bytes()
    begin, end = content.index(b"line 0951") - 20, len(content)
    path.write_bytes(content[:begin] + b"\xff" * (end - begin))
    # The next writer finds it, and goes on behind it.
    write(directory, [LogEntry(level=WARNING, message="more")])
    marks = log_marks(directory, buckets=4)
    check_stretches(marks, 1001)
    (lost,) = marks.missing
    assert lost.last == 1000
    assert 945 <= lost.first <= 951
    assert sum(map(sum, counts(marks))) == 1001 - (lost.last - lost.first + 1)
    assert counts(marks)[-1][2] == 1
    assert all(debug == 0 for debug, *_ in counts(marks))
    # And what readers have found elsewhere.
    marks = log_marks(directory, buckets=4, known_lost=[(10, 12), (12, 20), (990, 5000)])
    assert [(each.first, each.last) for each in marks.missing] == [(10, 20), (lost.first, 1001)]


def test_damage_at_a_mark_is_found(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    write(
        directory,
        [
            LogEntry(level=INFO if number % 3 else ERROR, message=f"line {number:05}")
            for number in range(1, 20_001)
        ],
    )
    path = directory.log / "entries"
    content = path.read_bytes()
    at = content.index(b"line 10000")
    path.write_bytes(content[:at] + b"\xff" * 10_000 + content[at + 10_000 :])
    marks = log_marks(directory, buckets=400)
    check_stretches(marks, 20_000)
    (lost,) = marks.missing
    assert 9998 <= lost.first <= 10_001
    assert 10_200 < lost.last < 10_600
    assert sum(map(sum, counts(marks))) <= 20_000


def test_a_log_without_its_index_is_drawn_if_it_is_short(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    write(directory, [LogEntry(level=INFO, message="x" * MAX_MESSAGE) for _ in range(60)])
    (directory.log / "entries.index").unlink()
    request = GetLogMarksRequest(buckets=7)
    marks = get_log_marks(directory, request, known_lost=())
    assert sum(map(sum, counts(marks))) == 60
    write(directory, [LogEntry(level=INFO, message="x" * MAX_MESSAGE) for _ in range(10)])
    (directory.log / "entries.index").write_bytes(b"\xff" * 400)
    path = directory.log / "entries"
    # Where even the heads cannot be read.
    content = path.read_bytes()
    path.write_bytes(content[:10] + b"\xff" * 90_000 + content[90_010:])
    with pytest.raises(FailedPrecondition, match="index"):
        get_log_marks(directory, request, known_lost=())


def test_an_empty_log_has_no_buckets(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    write(directory, [])
    marks = log_marks(directory, buckets=400)
    assert (marks.first_offset, marks.last_offset, list(marks.buckets)) == (0, 0, [])
    assert marks.epoch == logs.read_epoch(directory.log)


@pytest.mark.parametrize("buckets", [-1, 2001])
def test_so_many_buckets_cannot_be(tmp_path: Path, buckets: int) -> None:
    directory = JobDir(tmp_path)
    with pytest.raises(InvalidArgument, match="buckets: must be from 0 to 2000"):
        get_log_marks(directory, GetLogMarksRequest(buckets=buckets), known_lost=())


def own(text: str) -> LogEntry:
    return LogEntry(level=INFO, message=text, source=OWN)


def run(directory: JobDir, number: int, lines: int) -> None:
    """What a runner writes of one run."""
    recorder = Recorder(directory, RecordBounds())
    recorder.add_own_line(own(f"Run {number} begins on local."))
    recorder.add_lines(
        [LogEntry(level=INFO, message=f"*\x0bcoordinator {n}") for n in range(lines)]
    )
    recorder.close()


@pytest.mark.parametrize("older", [False, True])
def test_every_run_is_marked_with_its_first_entry(tmp_path: Path, older: bool) -> None:
    directory = JobDir(tmp_path)
    logs.create(directory.log)
    run_starts.create(directory.log)
    file = directory.log / "runs"
    expected = []
    for number in range(1, 6):
        write(directory, [own("Waiting in the queue.")])
        expected.append(log_marks(directory, buckets=1).last_offset + 1)
        run(directory, number, 700)
        if older and number < 4:
            # So far it was an earlier coordinator.
            file.unlink()
    assert list(log_marks(directory, buckets=10).run_offsets) == expected
    # Of a job that has ended, it is found once and kept; while somebody writes, it is not kept.
    file.unlink()
    with locked(directory.lock, wait=False):
        assert list(log_marks(directory, buckets=10).run_offsets) == expected
        assert not file.exists()
    assert list(log_marks(directory, buckets=10).run_offsets) == expected
    assert file.exists()


def test_a_run_is_marked_whatever_became_of_the_file(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    logs.create(directory.log)
    run_starts.create(directory.log)
    file = directory.log / "runs"
    run(directory, 1, 50)
    # A power cut leaves half an offset, or takes entries away.
    file.write_bytes(file.read_bytes() + b"\x01\x02\x03")
    run(directory, 2, 50)
    assert list(log_marks(directory, buckets=1).run_offsets) == [1, 52]
    run_starts.note_run(directory.log, 500)
    assert list(log_marks(directory, buckets=1).run_offsets) == [1, 52]
    run(directory, 3, 50)
    assert list(log_marks(directory, buckets=1).run_offsets) == [1, 52, 103]
    file.write_bytes(b"\xff" * 100)
    assert list(log_marks(directory, buckets=1).run_offsets) == []


def test_of_very_many_runs_the_newest_are_told(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    write(directory, [own(f"Run {number} begins on local.") for number in range(1, 1501)])
    assert list(log_marks(directory, buckets=1).run_offsets) == list(range(501, 1501))
    run(directory, 1501, 1)
    assert list(log_marks(directory, buckets=1).run_offsets) == list(range(502, 1502))
