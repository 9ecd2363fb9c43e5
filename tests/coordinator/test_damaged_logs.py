"""A record that is damaged on the disk is told as such, and ends no read."""

from contextlib import closing
from pathlib import Path

import pytest

from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogWriter
from app.coordinator.metrics import snapshots as metrics
from app.coordinator.metrics.snapshots import MetricsReader, MetricsWriter
from app.coordinator.service.logs.pages import list_logs
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import Cursor
from generated.mindcoordinator.v1.watch_pb2 import (
    ListJobLogsRequest,
    LogEntry,
    LogLevel,
    MetricsSnapshot,
)

LINES = 300


@pytest.fixture
def directory(tmp_path: Path) -> JobDir:
    """A log whose line 150 is no UTF-8 any more, as a flipped bit leaves it."""
    directory = JobDir(tmp_path)
    logs.create(directory.log)
    with closing(LogWriter(directory.log)) as writer:
        writer.append(
            [
                LogEntry(level=LogLevel.LOG_LEVEL_INFO, message=f"line {number:03}")
                for number in range(1, LINES + 1)
            ]
        )
    entries = Path(logs.entries_path(directory.log))
    content = entries.read_bytes()
    assert content.count(b"line 150") == 1
    entries.write_bytes(content.replace(b"line 150", b"line\xff150"))
    return directory


def is_whole(entries: list[LogEntry]) -> bool:
    """Every line is there, in its place, and the damaged one is told."""
    texts = [entry.message for entry in entries]
    return (
        [entry.offset for entry in entries] == list(range(1, LINES + 1))
        and "damaged" in texts.pop(149)
        and texts == [f"line {number:03}" for number in range(1, LINES + 1) if number != 150]
    )


def test_a_damaged_line_ends_no_read(directory: JobDir) -> None:
    page = logs.read_behind(logs.entries_path(directory.log), Cursor(), limit=1000)
    assert is_whole(page.entries)
    answer = list_logs(directory, ListJobLogsRequest(tail=LINES), ended=True)
    assert is_whole(list(answer.entries))
    warned = list_logs(
        directory,
        ListJobLogsRequest(tail=10, min_level=LogLevel.LOG_LEVEL_WARNING),
        ended=True,
    )
    assert not warned.entries or "damaged" in warned.entries[0].message


def test_a_log_with_a_damaged_line_is_gone_on_with(directory: JobDir) -> None:
    # A writer that has no index reads all of it.
    Path(logs.entries_path(directory.log) + ".index").unlink()
    with closing(LogWriter(directory.log)) as writer:
        assert writer.last_offset == LINES
        writer.append([LogEntry(message="more")])
        assert writer.last_offset == LINES + 1


def test_a_damaged_snapshot_ends_no_read(tmp_path: Path) -> None:
    with closing(MetricsWriter(tmp_path)) as writer:
        writer.append([MetricsSnapshot(step=n, extra={"name": n}) for n in range(1, 6)])
    snapshots = Path(metrics.snapshots_path(tmp_path))
    content = snapshots.read_bytes()
    at = content.rindex(b"name")
    snapshots.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    read, cursor = metrics.read_behind(metrics.snapshots_path(tmp_path), Cursor())
    assert [snapshot.step for snapshot in read] == [1, 2, 3, 4]
    assert cursor.number == 5
    with MetricsReader(tmp_path) as reader:
        assert reader.newest() is None
