"""Searches of a log: from its end to its beginning, within bounds, and what they cost."""

from pathlib import Path
from typing import Any

import pytest

from app.coordinator.logs import log as logs
from app.coordinator.logs.log import MAX_MESSAGE, LogReader, LogWriter
from app.coordinator.logs.search import SearchBounds, search
from app.coordinator.storage.records import READ
from app.log_filter import JUDGED_BYTES, LogFilter
from generated.mindcoordinator.v1.logs_pb2 import SearchEnd, SearchJobLogsResponse
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel
from tests.coordinator.reads import Reads

INFO, ERROR = LogLevel.LOG_LEVEL_INFO, LogLevel.LOG_LEVEL_ERROR
COUNT = 20_000


def write(path: Path, entries: list[LogEntry]) -> None:
    logs.create(path)
    writer = LogWriter(path)
    writer.append(entries)
    writer.close()


def ask(
    path: Path,
    *,
    before: int = 2**53,
    most: int = 100,
    scanned_bytes: int = 10**9,
    seconds: float = 100,
    **condition: Any,
) -> list[SearchJobLogsResponse]:
    bounds = SearchBounds(matches=most, scanned_bytes=scanned_bytes, seconds=seconds)
    with LogReader(path) as log:
        before = min(before, log.last_offset() + 1)
        return list(search(log, condition=LogFilter(**condition), before=before, bounds=bounds))


def offsets(messages: list[SearchJobLogsResponse]) -> list[int]:
    return [match.entry.offset for message in messages for match in message.matches]


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log")
    write(
        path,
        [
            LogEntry(
                level=ERROR if number % 1000 == 0 else INFO,
                message=f"step {number} loss {number % 7}" + " ööö" * (number % 3),
                source="stdout",
            )
            for number in range(1, COUNT + 1)
        ],
    )
    return path


def test_the_newest_match_comes_first_with_its_spans(long_log: Path) -> None:
    messages = ask(long_log, contains="STEP 19", most=3)
    assert offsets(messages) == [19_999, 19_998, 19_997]
    (match, *_) = messages[-1].matches
    assert [(span.start, span.end) for span in match.spans] == [(0, 7)]
    assert messages[-1].end == SearchEnd.SEARCH_END_LIMIT
    assert messages[-1].scanned_to == 19_997
    assert [message.epoch for message in messages] == [logs.read_epoch(long_log)] * len(messages)


def test_a_search_goes_on_where_one_ended_and_ends_at_the_beginning(long_log: Path) -> None:
    found: list[int] = []
    before = 2**53
    while True:
        messages = ask(long_log, before=before, contains="loss 3 ööö ööö", most=77)
        found += offsets(messages)
        if messages[-1].end == SearchEnd.SEARCH_END_EXHAUSTED:
            break
        before = messages[-1].scanned_to
    assert found == [n for n in range(COUNT, 0, -1) if n % 7 == 3 and n % 3 == 2]
    assert messages[-1].scanned_to == 1


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"matches": r"^step \d loss"}, list(range(9, 0, -1))),
        ({"matches": r"step 1234\d l"}, [*range(12_349, 12_339, -1)]),
        ({"contains": "step 1", "min_level": ERROR}, [19_000, *range(18_000, 9000, -1000), 1000]),
        ({"contains": "step 200 ", "matches": "ö$"}, [200]),
        ({"min_level": ERROR, "sources": frozenset({"stderr"})}, []),
    ],
)
def test_every_condition_holds(
    long_log: Path, condition: dict[str, Any], expected: list[int]
) -> None:
    messages = ask(long_log, **condition)
    assert offsets(messages) == expected
    assert messages[-1].end == SearchEnd.SEARCH_END_EXHAUSTED


def test_every_byte_is_looked_at_once_and_a_rare_level_spares_most(
    long_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (long_log / "entries").stat().st_size
    reads = Reads(monkeypatch)
    messages = ask(long_log, contains="nowhere")
    assert messages[-1].scanned_bytes == size
    assert reads.size < 1.2 * size + READ
    reads.size = 0
    assert ask(long_log, contains="nowhere", min_level=4)[-1].scanned_bytes <= size


def test_a_budget_ends_a_search_where_another_goes_on(long_log: Path) -> None:
    messages = ask(long_log, contains="step 1 ", scanned_bytes=300_000)
    assert messages[-1].end == SearchEnd.SEARCH_END_BUDGET
    assert 1 < messages[-1].scanned_to < COUNT
    # However little there is of it.
    for size, seconds in ((0, 100.0), (10**9, 0.0)):
        (*_, last) = ask(
            long_log, contains="step", before=1001, most=1000, scanned_bytes=size, seconds=seconds
        )
        assert last.end == SearchEnd.SEARCH_END_BUDGET
        assert 1 < last.scanned_to < 1001


def test_long_lines_are_judged_by_their_beginning_and_told_in_parts(tmp_path: Path) -> None:
    long = "x" * (MAX_MESSAGE - 6)
    write(
        tmp_path,
        [LogEntry(level=INFO, message=f"needle{long}") for _ in range(20)]
        + [LogEntry(level=INFO, message=f"{long}needle")],
    )
    messages = ask(tmp_path, contains="needle")
    assert offsets(messages) == list(range(20, 0, -1))
    assert max(message.ByteSize() for message in messages) < 400_000
    assert [message.match_count for message in messages][-1] == 20


def test_one_line_that_takes_long_is_told_of_before_the_next(tmp_path: Path) -> None:
    write(
        tmp_path,
        [LogEntry(level=INFO, message="ab" * (JUDGED_BYTES // 2)) for _ in range(4)],
    )
    (*_, last) = ask(tmp_path, matches="^[ab]*a[ab]{900}c", seconds=0)
    assert (last.end, last.scanned_to) == (SearchEnd.SEARCH_END_BUDGET, 4)


@pytest.mark.parametrize("before", [0, 1])
def test_nothing_lies_before_the_beginning(long_log: Path, before: int) -> None:
    (message,) = ask(long_log, before=before, contains="step")
    assert (message.end, message.scanned_to) == (SearchEnd.SEARCH_END_EXHAUSTED, 1)
