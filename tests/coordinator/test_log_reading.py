"""What is read of a long log: as much as is asked for, however long it is."""

from pathlib import Path

import pytest

from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogWriter
from app.coordinator.service.logs.pages import list_logs
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import READ
from generated.mindcoordinator.v1.watch_pb2 import (
    ListJobLogsRequest,
    LogEntry,
    LogLevel,
    LogPosition,
)
from tests.coordinator.reads import Reads

INFO, WARNING = LogLevel.LOG_LEVEL_INFO, LogLevel.LOG_LEVEL_WARNING


def long_log(path: Path, count: int) -> JobDir:
    """A log whose every thousandth line is a warning."""
    directory = JobDir(path)
    logs.create(directory.log)
    writer = LogWriter(directory.log)
    for start in range(1, count + 1, 2000):
        writer.append(
            [
                LogEntry(level=INFO if number % 1000 else WARNING, message=f"line {number}")
                for number in range(start, start + 2000)
            ]
        )
    writer.close()
    return directory


def test_a_piece_costs_the_same_in_a_log_ten_times_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = (20_000, 200_000)
    directories = [long_log(tmp_path / str(count), count) for count in counts]
    sizes = [(each.log / "entries").stat().st_size for each in directories]
    reads = Reads(monkeypatch)

    def ask(directory: JobDir, **request: object) -> tuple[list[int], int]:
        reads.size = 0
        answer = list_logs(directory, ListJobLogsRequest(**request), ended=True)  # type: ignore[arg-type]  # passed on as they are
        return [entry.offset for entry in answer.entries], reads.size

    costs = []
    for directory, count in zip(directories, counts, strict=True):
        epoch = logs.read_epoch(directory.log)
        middle = count // 2
        tail, tail_cost = ask(directory, tail=100)
        assert tail == list(range(count - 99, count + 1))
        page, page_cost = ask(
            directory, after=LogPosition(epoch=epoch, offset=middle), page_size=50
        )
        assert page == list(range(middle + 1, middle + 51))
        warnings, warnings_cost = ask(directory, tail=10, min_level=WARNING)
        assert warnings == list(range(count - 9000, count + 1, 1000))
        up_to, up_to_cost = ask(directory, tail=3, min_level=WARNING, through_offset=middle - 1)
        assert up_to == [middle - 3000, middle - 2000, middle - 1000]
        back, back_cost = ask(directory, before_offset=middle, page_size=50)
        assert back == list(range(middle - 50, middle))
        rare_back, rare_back_cost = ask(
            directory, before_offset=middle, page_size=5, min_level=WARNING
        )
        assert rare_back == list(range(middle - 5000, middle, 1000))
        costs.append((tail_cost, page_cost, warnings_cost, up_to_cost, back_cost, rare_back_cost))
    for short, long in zip(*costs, strict=True):
        # Less than one more read: near the end of a short file a read is short.
        assert long < short + READ
        assert 0 < long < sizes[1] / 4


def test_a_rare_level_is_read_a_page_at_a_time(tmp_path: Path) -> None:
    directory = long_log(tmp_path, 20_000)
    epoch = logs.read_epoch(directory.log)
    found: list[int] = []
    after = 0
    while after < 20_000:
        answer = list_logs(
            directory,
            ListJobLogsRequest(
                after=LogPosition(epoch=epoch, offset=after), min_level=WARNING, page_size=7
            ),
            ended=True,
        )
        assert len(answer.entries) <= 7
        assert answer.next_after_offset > after
        found += [entry.offset for entry in answer.entries]
        after = answer.next_after_offset
    assert found == list(range(1000, 20_001, 1000))
