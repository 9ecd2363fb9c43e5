"""Journals and logs: dense numbers, nothing doubled, wherever a crash cuts the files."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogReader, LogWriter
from app.coordinator.logs.pages import Bounds, read_backward, read_forward
from app.coordinator.storage import journal_writer
from app.coordinator.storage.records import Cursor
from app.log_filter import LogFilter
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

ENTRIES = st.lists(
    st.builds(
        LogEntry,
        level=st.sampled_from(list(LogLevel.values())[1:]),
        message=st.text(max_size=200),
        source=st.sampled_from(["stdout", "stderr"]),
    ),
    max_size=60,
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few records, so that little data has many of them."""
    monkeypatch.setattr(journal_writer, "BLOCK_RECORDS", 4)


def append(path: Path, entries: list[LogEntry], *, batch: int = 7) -> None:
    writer = LogWriter(path)
    for at in range(0, len(entries), batch):
        writer.append(entries[at : at + batch])
    writer.close()


def everything(path: Path) -> list[LogEntry]:
    with LogReader(path) as log:
        return list(pages(log))


def pages(log: LogReader, limit: int = 5) -> Iterator[LogEntry]:
    cursor = Cursor()
    while (page := log.read(cursor, limit=limit)).entries:
        yield from page.entries
        assert page.cursor.number == cursor.number + len(page.entries)
        cursor = page.cursor


@given(first=ENTRIES, second=ENTRIES, data=st.data())
def test_a_log_cut_anywhere_goes_on_densely(
    first: list[LogEntry], second: list[LogEntry], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder)
        logs.create(path)
        append(path, first)
        entries, index = path / "entries", path / "entries.index"
        cut = data.draw(st.integers(0, entries.stat().st_size), label="cut of the log")
        with open(entries, "r+b") as file:
            file.truncate(cut)
        kept_index = data.draw(st.integers(0, index.stat().st_size), label="cut of the index")
        with open(index, "r+b") as file:
            file.truncate(kept_index)
        whole = everything(path)
        assert whole == first[: len(whole)]
        append(path, second)
        after = everything(path)
        assert after[: len(whole)] == whole
        assert [entry.message for entry in after] == [
            entry.message for entry in (*first[: len(whole)], *second)
        ]
        assert [entry.offset for entry in after] == list(range(1, len(after) + 1))


@given(
    entries=ENTRIES,
    level=st.integers(0, 4),
    count=st.integers(0, 70),
    through=st.integers(0, 70),
    limit=st.integers(1, 20),
)
def test_tails_and_selections_are_those_of_the_plain_list(
    entries: list[LogEntry], level: int, count: int, through: int, limit: int
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder)
        logs.create(path)
        append(path, entries)
        through = min(through, len(entries))
        passing = [e for e in entries[:through] if e.level >= level]
        expected = passing[len(passing) - min(count, len(passing)) :]
        with LogReader(path) as log:
            cursor = log.tail(count, min_level=level, through=through)
            found: list[LogEntry] = []
            while cursor.number < through:
                page = read_forward(
                    log,
                    cursor,
                    condition=LogFilter(min_level=level),
                    through=through,
                    bounds=Bounds(entries=limit, size_bytes=10**6),
                )
                assert len(page.entries) <= limit
                assert page.first == cursor.number + 1
                assert page.last > cursor.number
                found += page.entries
                cursor = log.locate(page.last)
            assert found == expected
            assert log.last_offset() == len(entries)
            for offset in (0, through, len(entries)):
                assert log.locate(offset).number == offset


@given(seed=st.integers(0, 2**32), rarity=st.integers(1, 60))
def test_a_rare_level_is_found_wherever_it_is(seed: int, rarity: int) -> None:
    """In a hundred blocks, most of which are passed over."""
    random = Random(seed)
    info, error = LogLevel.LOG_LEVEL_INFO, LogLevel.LOG_LEVEL_ERROR
    entries = [LogEntry(level=info if random.randrange(rarity) else error) for _ in range(400)]
    with TemporaryDirectory() as folder:
        path = Path(folder)
        logs.create(path)
        append(path, entries)
        with LogReader(path) as log:
            rare = LogFilter(min_level=error)
            bounds = Bounds(entries=1000, size_bytes=10**6)
            page = read_forward(log, Cursor(), condition=rare, through=400, bounds=bounds)
            back = read_backward(log, 401, condition=rare, bounds=bounds)
        assert page.entries == [entry for entry in entries if entry.level == error]
        assert (back.first, back.last) == (page.first, page.last) == (1, 400)
        assert back.entries == page.entries


def test_a_reader_sees_whole_records_only(tmp_path: Path) -> None:
    logs.create(tmp_path)
    entry = LogEntry(level=LogLevel.LOG_LEVEL_INFO, message="x" * 300)
    append(tmp_path, [entry])
    whole = (tmp_path / "entries").read_bytes()
    with LogReader(tmp_path) as log:
        for cut in range(len(whole)):
            (tmp_path / "entries").write_bytes(whole + whole[:cut])
            assert len(log.read(Cursor(), limit=10).entries) == 1


def test_an_epoch_stays_until_the_log_is_made_anew(tmp_path: Path) -> None:
    logs.create(tmp_path / "log")
    epoch = logs.read_epoch(tmp_path / "log")
    logs.create(tmp_path / "log")
    assert logs.read_epoch(tmp_path / "log") == epoch
    logs.create(tmp_path / "other")
    assert logs.read_epoch(tmp_path / "other") != epoch
    assert 1 <= len(epoch) <= 32
    assert epoch.isalnum()
    assert epoch == epoch.lower()


def test_a_full_disk_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.create(tmp_path)
    writer = LogWriter(tmp_path)
    entry = LogEntry(level=LogLevel.LOG_LEVEL_INFO, message="x" * 300)
    writer.append([entry])
    real = journal_writer._write

    def short(file: int, data: bytes) -> None:
        real(file, data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_writer, "_write", short)
    with pytest.raises(OSError, match="No space left"):
        writer.append([entry])
    monkeypatch.setattr(journal_writer, "_write", real)
    writer.append([entry])
    writer.close()
    assert [entry.offset for entry in everything(tmp_path)] == [1, 2]
