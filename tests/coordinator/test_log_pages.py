"""ListJobLogs: pages forward and backward, what a filter lets pass, and where a page ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.coordinator.errors import FailedPrecondition, InvalidArgument
from app.coordinator.logs import log as logs
from app.coordinator.logs.log import MAX_MESSAGE, LogReader, LogWriter
from app.coordinator.logs.pages import Bounds, read_backward, read_forward
from app.coordinator.service.logs.pages import list_logs
from app.coordinator.storage.job_directory import JobDir
from app.log_filter import JUDGED_BYTES
from app.log_filter import LogFilter as Filter
from generated.mindcoordinator.v1.watch_pb2 import (
    ListJobLogsRequest,
    ListJobLogsResponse,
    LogEntry,
    LogFilter,
    LogLevel,
    LogPosition,
)

INFO, WARNING = LogLevel.LOG_LEVEL_INFO, LogLevel.LOG_LEVEL_WARNING
COUNT = 1000

Ask = Callable[..., ListJobLogsResponse]


def entry(number: int) -> LogEntry:
    made = LogEntry(
        level=WARNING if number % 10 == 0 else INFO,
        message=f"Step {number:04} of rank {number % 4}",
        source="stderr" if number % 2 else "stdout",
        rank=number % 4,
    )
    made.timestamp.seconds = number
    return made


def a_log(path: Path, entries: list[LogEntry]) -> Ask:
    directory = JobDir(path)
    logs.create(directory.log)
    writer = LogWriter(directory.log)
    writer.append(entries)
    writer.close()

    def ask(**request: Any) -> ListJobLogsResponse:
        return list_logs(directory, ListJobLogsRequest(**request), ended=True)

    return ask


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    return a_log(tmp_path, [entry(number) for number in range(1, COUNT + 1)])


def offsets(page: ListJobLogsResponse) -> list[int]:
    return [each.offset for each in page.entries]


def start_of(ask: Ask) -> LogPosition:
    return LogPosition(epoch=ask().epoch)


def every_page(ask: Ask, condition: LogFilter, *, size: int = 7) -> list[int]:
    """The offsets of what passes, forward and backward."""
    epoch = ask(page_size=1).epoch
    forward: list[int] = []
    after = 0
    while after < COUNT:
        place = LogPosition(epoch=epoch, offset=after)
        page = ask(after=place, page_size=size, filter=condition)
        assert page.next_after_offset > after
        assert page.next_before_offset == 0
        forward += offsets(page)
        after = page.next_after_offset
    backward: list[int] = []
    before = COUNT + 1
    while before > 1:
        page = ask(before_offset=before, page_size=size, filter=condition)
        assert page.next_before_offset < before
        assert page.next_after_offset == before - 1
        backward[:0] = offsets(page)
        before = page.next_before_offset
    assert forward == backward
    return forward


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"min_level": WARNING}, lambda number: number % 10 == 0),
        ({"ranks": [1, 3]}, lambda number: number % 2 == 1),
        ({"sources": ["stdout"]}, lambda number: number % 2 == 0),
        ({"contains": "STEP 05"}, lambda number: 500 <= number < 600),
        ({"matches": r"Step 0\d00"}, lambda number: number < 1000 and number % 100 == 0),
        ({"matches": r"^Step .*7 of rank \d$"}, lambda number: number % 10 == 7),
        (
            {"contains": "rank 2", "matches": "00"},
            lambda number: number % 4 == 2 and "00" in f"{number:04}",
        ),
        ({"contains": "nowhere"}, lambda number: False),
        ({"since": {"seconds": 300}, "until": {"seconds": 310}}, lambda n: 300 <= n < 310),
        ({"min_level": WARNING, "contains": "99"}, lambda number: number == 990),
    ],
)
def test_a_filter_lets_the_same_entries_pass_in_both_directions(
    ask: Ask, condition: dict[str, Any], expected: Callable[[int], bool]
) -> None:
    wanted = [number for number in range(1, COUNT + 1) if expected(number)]
    assert every_page(ask, LogFilter(**condition)) == wanted


def test_a_filter_holds_besides_the_level(ask: Ask) -> None:
    condition = LogFilter(contains="1")
    page = ask(after=start_of(ask), min_level=WARNING, filter=condition, page_size=3)
    assert offsets(page) == [10, 100, 110]
    page = ask(tail=2, min_level=WARNING, filter=condition)
    assert offsets(page) == [1000]


def test_a_page_is_backward_from_any_place(ask: Ask) -> None:
    assert offsets(ask(before_offset=501, page_size=3)) == [498, 499, 500]
    first = ask(before_offset=3, page_size=3)
    assert (offsets(first), first.next_before_offset) == ([1, 2], 1)
    # Behind the end, and at the beginning.
    far = ask(before_offset=2**62, page_size=2)
    assert (offsets(far), far.next_before_offset, far.next_after_offset) == ([999, 1000], 999, 1000)
    none = ask(before_offset=1)
    assert (offsets(none), none.next_before_offset, none.next_after_offset) == ([], 1, 0)
    # No entry behind `through_offset` is returned.
    assert offsets(ask(before_offset=900, through_offset=500, page_size=2)) == [499, 500]


def test_an_empty_log_has_empty_pages(tmp_path: Path) -> None:
    ask = a_log(tmp_path, [])
    requests: list[dict[str, Any]] = [{}, {"before_offset": 5}]
    for request in [*requests, {"filter": LogFilter(contains="x")}]:
        page = ask(**request)
        assert (offsets(page), page.next_after_offset, page.last_offset) == ([], 0, 0)
        assert page.next_before_offset <= 1


def pieces(path: Path, condition: Filter, bounds: Bounds) -> list[tuple[list[int], int, int]]:
    """The offsets of a log page by page, and up to where each looked: forward, then backward."""
    found = []
    with LogReader(JobDir(path).log) as log:
        last = log.last_offset()
        at = 0
        while at < last:
            page = read_forward(
                log, log.locate(at), condition=condition, through=last, bounds=bounds
            )
            found.append(([each.offset for each in page.entries], page.first, page.last))
            assert (page.first, page.last > at) == (at + 1, True)
            at = page.last
        at = last + 1
        while at > 1:
            page = read_backward(log, at, condition=condition, bounds=bounds)
            found.append(([each.offset for each in page.entries], page.first, page.last))
            assert (page.last, page.first < at) == (at - 1, True)
            at = page.first
    return found


def test_a_page_ends_where_enough_was_scanned_and_says_where(ask: Ask, tmp_path: Path) -> None:
    assert ask().last_offset == COUNT
    bounds = Bounds(entries=100, size_bytes=10**6, scanned_bytes=20_000)
    nothing = pieces(tmp_path, Filter(contains="nowhere"), bounds)
    assert 4 < len(nothing) < 20
    assert all(offsets == [] for offsets, _, _ in nothing)
    rare = pieces(tmp_path, Filter(contains="0007 of"), bounds)
    assert [offsets for offsets, _, _ in rare if offsets] == [[7], [7]]
    assert [first for _, first, _ in rare] == [first for _, first, _ in nothing]


def test_a_page_whose_time_is_over_leads_on(tmp_path: Path) -> None:
    a_log(tmp_path, [LogEntry(level=INFO, message="ab" * (JUDGED_BYTES // 2)) for _ in range(3)])
    bounds = Bounds(entries=100, size_bytes=10**6, seconds=0)
    slow = Filter(matches="^[ab]*a[ab]{900}c")
    assert pieces(tmp_path, slow, bounds) == [
        *(([], number, number) for number in (1, 2, 3)),
        *(([], number, number) for number in (3, 2, 1)),
    ]


def test_a_page_of_long_lines_has_fewer_of_them(tmp_path: Path) -> None:
    ask = a_log(tmp_path, [LogEntry(level=INFO, message="x" * MAX_MESSAGE) for _ in range(40)])
    forward = ask(page_size=40, after=start_of(ask))
    assert offsets(forward) == list(range(1, 16))
    assert forward.next_after_offset == 15
    backward = ask(page_size=40, before_offset=41)
    assert offsets(backward) == list(range(26, 41))
    assert backward.next_before_offset == 26
    assert backward.ByteSize() < 2**20 + 2**10


@pytest.mark.parametrize(
    ("request_fields", "fields"),
    [
        ({"before_offset": -1}, ["before_offset"]),
        ({"before_offset": 5, "tail": 3}, ["before_offset"]),
        ({"before_offset": 5, "after": LogPosition(offset=1)}, ["before_offset"]),
        ({"page_size": 10_001, "tail": -1}, ["page_size", "tail"]),
        ({"filter": LogFilter(matches="(")}, ["filter.matches"]),
        ({"filter": LogFilter(matches=r"\pL{70}")}, ["filter.matches"]),
        ({"filter": LogFilter(contains="x" * 257)}, ["filter.contains"]),
        ({"filter": LogFilter(ranks=[-1])}, ["filter.ranks"]),
        ({"filter": LogFilter(ranks=[1] * 257)}, ["filter.ranks"]),
        ({"filter": LogFilter(sources=[""])}, ["filter.sources"]),
        ({"filter": {"since": {"seconds": -1}}}, ["filter.since"]),
        ({"filter": LogFilter(matches="("), "page_size": -1}, ["page_size", "filter.matches"]),
    ],
)
def test_what_cannot_be_asked_is_refused_by_its_fields(
    ask: Ask, request_fields: dict[str, Any], fields: list[str]
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        ask(**request_fields)
    assert [problem.field for problem in refused.value.problems] == fields


def test_another_epoch_is_refused(ask: Ask) -> None:
    with pytest.raises(FailedPrecondition, match=r"after\.epoch"):
        ask(after=LogPosition(epoch="other", offset=1))
