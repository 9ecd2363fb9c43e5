"""Lines and snapshots of a run are written once each, whatever the disk takes."""

import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.coordinator.engines.local.runner.recording import RecordBounds, Recorder
from app.coordinator.logs import log
from app.coordinator.logs.log import LogReader
from app.coordinator.metrics.snapshots import MetricsReader
from app.coordinator.storage import journal_writer
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import Cursor
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel, MetricsSnapshot


@pytest.fixture
def job(tmp_path: Path) -> JobDir:
    directory = JobDir(tmp_path)
    log.create(directory.log)
    return directory


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """A function that sets how many more bytes the disk takes; None if any number."""
    room: int | None = None

    def write(file: int, data: bytes) -> None:
        nonlocal room
        if room is not None and len(data) > room:
            # The writer cuts it off again.
            os.write(file, data[:room])
            raise OSError(errno.ENOSPC, "No space left on device")
        os.write(file, data)
        if room is not None:
            room -= len(data)

    def limit(count: int | None) -> None:
        nonlocal room
        room = count

    monkeypatch.setattr(journal_writer, "_write", write)
    return limit


def lines(*texts: str, source: str = "stdout") -> list[LogEntry]:
    return [LogEntry(level=LogLevel.LOG_LEVEL_INFO, message=text, source=source) for text in texts]


def messages(job: JobDir) -> list[tuple[int, str]]:
    with LogReader(job.log) as reader:
        return [(each.offset, each.message) for each in reader.read(Cursor(), limit=100).entries]


def steps(job: JobDir) -> list[tuple[int, int]]:
    with MetricsReader(job.metrics) as reader:
        return [(each.sequence, each.step) for each in reader.after(Cursor())[0]]


def try_again(recorder: Recorder) -> None:
    recorder.retry_at = 0.0
    recorder.write()


def test_what_a_full_disk_took_in_part_is_written_once(
    job: JobDir, disk: Callable[[int | None], None]
) -> None:
    with closing(Recorder(job, RecordBounds())) as recorder:
        recorder.add_lines(lines("a"))
        disk(30)
        # Room for the first of three, and a part of the next.
        recorder.add_lines(lines("b", "c" * 20, "d"))
        assert recorder.waits
        assert recorder.waiting_lines
        assert recorder.obstacle == "No space left on device"
        for _ in range(3):
            disk(7)
            try_again(recorder)
            assert messages(job) == [(1, "a"), (2, "b")]
        recorder.add_own_line(lines("e", source="coordinator")[0])
        recorder.add_snapshots([MetricsSnapshot(step=5)])
        disk(None)
        try_again(recorder)
        assert not recorder.waits
        recorder.add_lines(lines("f"))
        recorder.add_snapshots([MetricsSnapshot(step=6)])
        texts = ["a", "b", "c" * 20, "d", "e", "f"]
        assert messages(job) == list(enumerate(texts, 1))
        assert steps(job) == [(1, 5), (2, 6)]


def test_lines_that_were_written_are_not_written_again_for_snapshots_that_were_not(
    job: JobDir, disk: Callable[[int | None], None]
) -> None:
    with closing(Recorder(job, RecordBounds())) as recorder:
        disk(0)
        recorder.add_lines(lines("a"))
        recorder.add_snapshots([MetricsSnapshot(step=5, epoch=0.5)])
        entry = lines("a")[0]
        entry.offset = 1
        # Room for the line alone.
        disk(entry.ByteSize() + 2)
        try_again(recorder)
        assert (recorder.waiting_lines, recorder.waiting_snapshots) == (False, True)
        disk(None)
        try_again(recorder)
        assert messages(job) == [(1, "a")]
        assert steps(job) == [(1, 5)]


def test_other_failures_to_write_are_raised(job: JobDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: int, data: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with closing(Recorder(job, RecordBounds())) as recorder:
        monkeypatch.setattr(journal_writer, "_write", broken)
        with pytest.raises(OSError, match="Input/output error"):
            recorder.add_lines(lines("a"))


def test_what_is_behind_a_bound_is_counted_and_said_once(job: JobDir) -> None:
    with closing(Recorder(job, RecordBounds(log=60, metrics=20))) as recorder:
        said = [recorder.add_lines(lines("x" * 30)) for _ in range(5)]
        assert [bool(text) for text in said] == [False, False, True, False, False]
        assert "(job_log_bytes): later lines are left out." in said[2]
        said = [recorder.add_snapshots([MetricsSnapshot(step=1)] * 5) for _ in range(3)]
        assert [bool(text) for text in said] == [False, True, False]
        assert "(job_metrics_bytes): later snapshots are left out." in said[1]
        # The coordinator still tells of the run.
        recorder.add_own_line(lines("over", source="coordinator")[0])
        assert recorder.left_out() == [
            "3 lines of this run were left out of the job's log (job_log_bytes).",
            "10 snapshots of this run were left out of the job's metrics (job_metrics_bytes).",
        ]
    assert [text for _, text in messages(job)] == ["x" * 30] * 2 + ["over"]


def test_what_is_kept_elsewhere_counts_for_the_bounds(job: JobDir) -> None:
    bounds = RecordBounds(log=1000, metrics=1000, log_before=990, metrics_before=1000)
    with closing(Recorder(job, bounds)) as recorder:
        assert not recorder.add_lines(lines("the last one"))
        assert "job_log_bytes" in recorder.add_lines(lines("too late"))
        assert "job_metrics_bytes" in recorder.add_snapshots([MetricsSnapshot(step=1)])
        assert len(recorder.left_out()) == 2
    assert [text for _, text in messages(job)] == ["the last one"]
    assert not steps(job)
