"""Whatever bytes of a journal are damaged: no read ends there, and no offset is given twice."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogReader, LogWriter
from app.coordinator.logs.pages import passes
from app.coordinator.logs.search import SearchBounds, search
from app.coordinator.metrics import snapshots as metrics
from app.coordinator.metrics.downsampling import downsample
from app.coordinator.metrics.snapshots import MetricsReader, MetricsWriter
from app.coordinator.service.logs.filters import filter_of
from app.coordinator.service.logs.pages import list_logs
from app.coordinator.storage import journal_scan, journal_writer
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import Cursor, frame_head
from app.log_filter import LogFilter as Filter
from generated.mindcoordinator.v1.logs_pb2 import SearchEnd
from generated.mindcoordinator.v1.watch_pb2 import (
    ListJobLogsRequest,
    LogEntry,
    LogFilter,
    LogLevel,
    LogPosition,
    MetricsSnapshot,
)

METRICS = ("snapshots", "snapshots.index", "blocks", "blocks.index")
LINES = 40
BLOCK = 8
ANY, INFO, ERROR = (
    LogLevel.LOG_LEVEL_UNSPECIFIED,
    LogLevel.LOG_LEVEL_INFO,
    LogLevel.LOG_LEVEL_ERROR,
)

often = settings(
    settings.get_profile("often"),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    deadline=None,
)
#: What is written over a file: where, as a share of its size, and which bytes.
DAMAGE = st.tuples(
    st.floats(0, 1),
    st.binary(min_size=1, max_size=300)
    | st.integers(1, 300).map(bytes)
    | st.integers(1, 300).map(lambda size: b"\x12" * size),
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few records, so that little data has many of them."""
    monkeypatch.setattr(journal_writer, "BLOCK_RECORDS", BLOCK)
    monkeypatch.setattr(journal_scan, "_GROUP", 500)


def line(number: int) -> LogEntry:
    return LogEntry(
        level=ERROR if number % 5 == 0 else INFO,
        message=f"line {number:04} " + "x" * (number % 7),
        source="stdout",
        node_id="node-1",
    )


@contextmanager
def job(*, closed: bool = True) -> Iterator[JobDir]:
    """A job with LINES lines; `closed` tells whether its writer ended, or was killed."""
    with TemporaryDirectory() as folder:
        directory = JobDir(Path(folder))
        logs.create(directory.log)
        writer = LogWriter(directory.log)
        for start in range(1, LINES + 1, 4):
            writer.append([line(number) for number in range(start, start + 4)])
        if closed:
            writer.close()
        else:
            writer._journal._close_files()
        yield directory


def damage(path: Path, what: tuple[float, bytes]) -> None:
    share, content = what
    before = path.read_bytes()
    at = int(share * len(before))
    path.write_bytes(before[:at] + content[: len(before) - at] + before[at + len(content) :])


def watched(directory: JobDir) -> list[LogEntry]:
    """What WatchJob sends from the start on."""
    entries: list[LogEntry] = []
    cursor = Cursor()
    while True:
        page = logs.read_behind(logs.entries_path(directory.log), cursor, limit=7)
        assert page.cursor.number >= cursor.number
        if not page.entries:
            return entries
        offsets = [entry.offset for entry in page.entries]
        assert offsets == list(range(offsets[0], offsets[-1] + 1)), "a message is dense"
        assert offsets[0] > cursor.number
        assert offsets[-1] == page.cursor.number
        entries += page.entries
        cursor = page.cursor


def listed(directory: JobDir, *, min_level: LogLevel.ValueType = ANY) -> list[LogEntry]:
    """What ListJobLogs has, page by page."""
    epoch = logs.read_epoch(directory.log)
    entries: list[LogEntry] = []
    after = 0
    while True:
        place = LogPosition(epoch=epoch, offset=after)
        request = ListJobLogsRequest(after=place, page_size=9, min_level=min_level)
        answer = list_logs(directory, request, ended=True)
        entries += answer.entries
        if answer.next_after_offset >= answer.last_offset:
            return entries
        assert answer.next_after_offset > after, "every page leads on"
        after = answer.next_after_offset


def listed_backward(
    directory: JobDir, **request: Any
) -> tuple[list[LogEntry], list[tuple[int, int]]]:
    """What ListJobLogs has from the end on, page by page, and what it says is lost; ascending."""
    entries: list[LogEntry] = []
    missing: list[tuple[int, int]] = []
    before = 2**62
    while before > 1:
        answer = list_logs(
            directory, ListJobLogsRequest(before_offset=before, **request), ended=True
        )
        assert answer.next_before_offset < before, "every page leads on"
        assert answer.next_after_offset == min(before - 1, answer.last_offset)
        assert all(answer.next_before_offset <= entry.offset < before for entry in answer.entries)
        entries[:0] = answer.entries
        missing[:0] = [(lost.first, lost.last) for lost in answer.missing]
        before = answer.next_before_offset
    return entries, missing


def listed_filtered(
    directory: JobDir, condition: LogFilter
) -> tuple[list[LogEntry], list[tuple[int, int]]]:
    """What ListJobLogs has of a filter from the start on, and what it says is lost."""
    epoch = logs.read_epoch(directory.log)
    entries: list[LogEntry] = []
    missing: list[tuple[int, int]] = []
    after, last = 0, 1
    while after < last:
        place = LogPosition(epoch=epoch, offset=after)
        request = ListJobLogsRequest(after=place, page_size=4, filter=condition)
        answer = list_logs(directory, request, ended=True)
        assert answer.next_after_offset > after or not answer.last_offset, "every page leads on"
        entries += answer.entries
        missing += [(lost.first, lost.last) for lost in answer.missing]
        after, last = answer.next_after_offset, answer.last_offset
    return entries, missing


def searched(log: LogReader, condition: Filter, last: int, *, size: int = 3) -> list[LogEntry]:
    """What searches find from the end on, each going on where the one before ended."""
    found: list[LogEntry] = []
    before = last + 1
    while True:
        bounds = SearchBounds(matches=size, scanned_bytes=1000, seconds=100)
        messages = list(search(log, condition=condition, before=before, bounds=bounds))
        assert [bool(message.end) for message in messages] == [False] * (len(messages) - 1) + [True]
        found += [match.entry for message in messages for match in message.matches]
        end = messages[-1]
        if end.end == SearchEnd.SEARCH_END_EXHAUSTED:
            assert end.scanned_to == 1
            return found
        assert end.match_count == size or end.end == SearchEnd.SEARCH_END_BUDGET
        assert 1 <= end.scanned_to < before, "every search leads on"
        before = end.scanned_to


def covered(entries: list[LogEntry], lost: list[tuple[int, int]]) -> set[int]:
    """The offsets that were told of."""
    return {
        *(entry.offset for entry in entries),
        *(offset for first, last in lost for offset in range(first, last + 1)),
    }


def is_true(entry: LogEntry) -> bool:
    """It is the line that was written there, or says that it is damaged."""
    return "damaged" in entry.message or entry.message == line(entry.offset).message


def is_readable(entry: LogEntry) -> bool:
    """It is a line that was written, not what stands in the place of one."""
    return entry.source != "coordinator"


def whole_errors(entries: list[LogEntry]) -> list[int]:
    """The offsets of errors that are no damaged lines."""
    return [each.offset for each in entries if each.level >= ERROR and each.source == "stdout"]


@often
@given(what=st.lists(DAMAGE, min_size=1, max_size=3), closed=st.booleans())
@example(what=[(0.5, b"\xff" * 300)], closed=True)
@example(what=[(0.95, b"\xff" * 300)], closed=True)
@example(what=[(0.95, b"\xff" * 300)], closed=False)
@example(what=[(0.0, b"\x00" * 300)], closed=False)
def test_a_damaged_log_is_read_to_its_end(what: list[tuple[float, bytes]], closed: bool) -> None:
    with job(closed=closed) as directory:
        for each in what:
            damage(directory.log / "entries", each)
        entries = watched(directory)
        offsets = [entry.offset for entry in entries]
        assert offsets == sorted(set(offsets))
        assert not offsets or offsets[-1] <= LINES
        assert listed(directory) == entries
        # From the other side, what is damaged may be in its place or missing.
        backward, lost = listed_backward(directory, page_size=9)
        assert [*filter(is_readable, backward)] == [*filter(is_readable, entries)]
        with LogReader(directory.log) as reader:
            assert covered(backward, lost) == set(range(1, reader.last_offset() + 1))
        assert whole_errors(entries) == whole_errors(listed(directory, min_level=ERROR))
        # A writer goes on behind all of it, and what could be read still can be.
        writer = LogWriter(directory.log)
        last = writer.last_offset
        assert last >= max(offsets, default=0)
        if closed:
            assert last >= LINES
        writer.append([LogEntry(level=ERROR, message="more")])
        writer.close()
        after = watched(directory)
        assert after[-1].message == "more"
        assert after[-1].offset == last + 1
        assert {entry.offset for entry in entries} <= {entry.offset for entry in after}
        assert listed(directory) == after
        with LogReader(directory.log) as reader:
            assert reader.last_offset() == last + 1
            for offset in range(last + 2):
                assert reader.locate(offset).number == offset
        assert listed(directory, min_level=ERROR)[-1].message == "more"


@often
@given(what=st.lists(DAMAGE, min_size=1, max_size=3), closed=st.booleans())
@example(what=[(0.5, b"\xff" * 300)], closed=True)
@example(what=[(0.85546875, b"\x00")], closed=False)
def test_what_is_lost_of_a_level_is_named(what: list[tuple[float, bytes]], closed: bool) -> None:
    with job(closed=closed) as directory:
        for each in what:
            damage(directory.log / "entries", each)
        epoch = logs.read_epoch(directory.log)
        #: Delivered, or named as lost.
        named: set[int] = set()
        after, last = 0, 1
        while after < last:
            place = LogPosition(epoch=epoch, offset=after)
            request = ListJobLogsRequest(after=place, page_size=2, min_level=ERROR)
            answer = list_logs(directory, request, ended=True)
            for lost in answer.missing:
                assert after < lost.first <= lost.last <= answer.next_after_offset
                named.update(range(lost.first, lost.last + 1))
            named.update(entry.offset for entry in answer.entries)
            after, last = answer.next_after_offset, answer.last_offset
        # A byte that makes another level of one is no damage that can be seen.
        changed = {entry.offset for entry in watched(directory) if entry.level < ERROR}
        expected = set(range(5, last + 1, 5)) - changed
        assert expected <= named
        errors, lost_errors = listed_backward(directory, page_size=2, min_level=ERROR)
        assert expected <= covered(errors, lost_errors)


@settings(often, max_examples=60)
@given(
    what=st.lists(DAMAGE, min_size=1, max_size=3),
    closed=st.booleans(),
    condition=st.sampled_from(
        (
            LogFilter(contains="LINE 00"),
            LogFilter(contains="0017"),
            LogFilter(matches="^line 00"),
            LogFilter(matches=r"line 0\d", min_level=INFO),
            LogFilter(sources=["stdout"]),
        )
    ),
)
@example(what=[(0.5, b"\xff" * 300)], closed=True, condition=LogFilter(contains="line"))
def test_what_is_lost_may_have_passed_any_filter(
    what: list[tuple[float, bytes]], closed: bool, condition: LogFilter
) -> None:
    with job(closed=closed) as directory:
        for each in what:
            damage(directory.log / "entries", each)
        sound = [*filter(is_readable, watched(directory))]
        with LogReader(directory.log) as reader:
            last = reader.last_offset()
        unknown = set(range(1, last + 1)) - {entry.offset for entry in sound}
        passing = [entry for entry in sound if passes(filter_of(condition), entry)]
        for found, lost in (
            listed_backward(directory, page_size=3, filter=condition),
            listed_filtered(directory, condition),
        ):
            assert found == passing
            assert covered([], lost) == unknown
        # A search says of its matches alone.
        with LogReader(directory.log) as reader:
            assert searched(reader, filter_of(condition), last) == passing[::-1]


@often
@given(at=st.integers(1, LINES), size=st.integers(1, 12))
def test_few_bytes_cost_few_lines(at: int, size: int) -> None:
    with job() as directory:
        path = directory.log / "entries"
        content = path.read_bytes()
        start = content.index(f"line {at:04}".encode())
        path.write_bytes(content[:start] + b"\xff" * size + content[start + size :])
        read = [entry for entry in watched(directory) if "damaged" not in entry.message]
        assert all(map(is_true, read))
        assert len(read) >= LINES - 2
        assert listed(directory)[-1].offset >= LINES - 2


@often
@given(what=st.lists(DAMAGE, min_size=1, max_size=3), cut=st.floats(0, 1))
def test_a_damaged_index_changes_no_answer(what: list[tuple[float, bytes]], cut: float) -> None:
    with job() as directory:
        index = directory.log / "entries.index"
        for each in what:
            damage(index, each)
        if cut < 0.5:
            index.write_bytes(index.read_bytes()[: int(2 * cut * index.stat().st_size)])
        expected = [line(number).message for number in range(1, LINES + 1)]
        assert [entry.message for entry in watched(directory)] == expected
        assert [entry.message for entry in listed(directory)] == expected
        back, _ = listed_backward(directory, page_size=7)
        assert [entry.message for entry in back] == expected
        with LogReader(directory.log) as reader:
            assert reader.last_offset() == LINES
        writer = LogWriter(directory.log)
        assert writer.last_offset == LINES
        writer.close()


@often
@given(position=st.integers(0, 39), byte=st.integers(0, 255), entry=st.integers(0, LINES // BLOCK))
def test_one_wrong_byte_of_the_index_hides_no_line(position: int, byte: int, entry: int) -> None:
    with job() as directory:
        index = directory.log / "entries.index"
        content = bytearray(index.read_bytes())
        content[(entry * 40 + position) % len(content)] = byte
        index.write_bytes(content)
        errors = [entry.offset for entry in listed(directory, min_level=ERROR)]
        assert errors == list(range(5, LINES + 1, 5))
        for count in (1, 3, 8):
            answer = list_logs(
                directory, ListJobLogsRequest(tail=count, min_level=ERROR), ended=True
            )
            offsets = [entry.offset for entry in answer.entries]
            assert offsets[-count:] == errors[-count:]
        back, lost = listed_backward(directory, page_size=3, min_level=ERROR)
        assert [entry.offset for entry in back] == errors
        assert lost == []
        with LogReader(directory.log) as reader:
            rare = Filter(contains="5", min_level=ERROR)
            assert [entry.offset for entry in searched(reader, rare, LINES)] == [35, 25, 15, 5]


def test_a_log_without_its_index_is_read() -> None:
    with job() as directory:
        (directory.log / "entries.index").unlink()
        assert len(watched(directory)) == LINES
        assert len(listed(directory)) == LINES
        assert len(listed_backward(directory, page_size=7)[0]) == LINES
        with LogReader(directory.log) as reader:
            assert len(searched(reader, Filter(contains="line"), LINES)) == LINES


def test_half_a_line_is_no_damage() -> None:
    """A reader waits for its other half."""
    with job(closed=False) as directory:
        path = directory.log / "entries"
        whole = path.read_bytes()
        last = LogEntry(offset=LINES + 1, level=INFO, message="\x12\x05\x08\x7f" * 40)
        payload = last.SerializeToString()
        record = frame_head(logs.ENTRIES.tag, len(payload)) + payload
        for cut in range(1, len(record)):
            path.write_bytes(whole + record[:cut])
            page = logs.read_behind(str(path), Cursor(), limit=1000)
            assert page.cursor == Cursor(LINES, len(whole))
            assert not logs.read_behind(str(path), page.cursor, limit=1000).entries
        path.write_bytes(whole + record)
        assert watched(directory)[-1].message == last.message


def test_what_is_lost_at_the_end_is_told() -> None:
    with job() as directory:
        path = directory.log / "entries"
        content = path.read_bytes()
        at = content.index(f"line {LINES - 2:04}".encode()) - 20
        path.write_bytes(content[:at] + b"\xff" * (len(content) - at))
        answer = list_logs(directory, ListJobLogsRequest(tail=LINES), ended=True)
        assert answer.last_offset == answer.next_after_offset == LINES
        assert answer.entries[-1].offset < LINES - 1


@often
@given(
    what=DAMAGE, name=st.sampled_from(["snapshots", "snapshots.index", "blocks", "blocks.index"])
)
def test_damaged_metrics_are_read_to_their_end(what: tuple[float, bytes], name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder)
        writer = MetricsWriter(path)
        for start in range(1, 300, 30):
            writer.append([MetricsSnapshot(step=n, loss=1 / n) for n in range(start, start + 30)])
        writer.close()
        shutil.copytree(path, path / "whole", ignore=shutil.ignore_patterns("whole"))
        damage(path / name, what)
        read, cursor = metrics.read_behind(metrics.snapshots_path(path), Cursor())
        steps = [snapshot.step for snapshot in read]
        while True:
            more, cursor = metrics.read_behind(metrics.snapshots_path(path), cursor)
            if not more:
                break
            steps += [snapshot.step for snapshot in more]
        if name != "snapshots":
            assert steps == list(range(1, 301))
        with MetricsReader(path) as reader:
            assert reader.last() == 300
            reader.newest()
        for points in (2, 20, 1000):
            assert downsample(path, points)[1] == 300
        writer = MetricsWriter(path)
        assert writer.last_sequence >= 300
        writer.append([MetricsSnapshot(step=301)])
        writer.close()
        with MetricsReader(path) as reader:
            newest = reader.newest()
        assert newest is not None
        assert newest.step == 301
