"""Filtered pages pass over what is as it was written; what is damaged is named all the same."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coordinator.logs import log as logs
from app.coordinator.logs import pages
from app.coordinator.logs.log import LogReader, LogWriter
from app.coordinator.storage import journal_writer
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import Slice
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogFilter
from tests.coordinator.test_damaged_journals import (
    BLOCK,
    DAMAGE,
    LINES,
    damage,
    job,
    line,
    listed_backward,
    listed_filtered,
    often,
)

NOWHERE = LogFilter(contains="nowhere")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few records, so that little data has many of them."""
    monkeypatch.setattr(journal_writer, "BLOCK_RECORDS", BLOCK)


def damage_line(directory: JobDir, number: int, content: bytes = b"\xff\xff") -> None:
    """Damage a line's text."""
    path = directory.log / "entries"
    data = path.read_bytes()
    at = data.index(b"line %04d" % number)
    path.write_bytes(data[:at] + content + data[at + len(content) :])


@settings(often, max_examples=80)
@given(
    damages=st.lists(DAMAGE, max_size=2),
    in_sums=st.lists(DAMAGE, max_size=1),
    closed=st.booleans(),
    text=st.sampled_from(["line 0023", "x" * 6, "nowhere"]),
)
def test_with_sums_and_without_pages_say_the_same(
    damages: list[tuple[float, bytes]],
    in_sums: list[tuple[float, bytes]],
    closed: bool,
    text: str,
) -> None:
    with job(closed=closed) as directory:
        for each in damages:
            damage(directory.log / "entries", each)
        for each in in_sums:
            damage(directory.log / "entries.sums", each)
        condition = LogFilter(contains=text)
        forward = listed_filtered(directory, condition)
        backward = listed_backward(directory, filter=condition, page_size=4)
        (directory.log / "entries.sums").unlink()
        assert listed_filtered(directory, condition) == forward
        assert listed_backward(directory, filter=condition, page_size=4) == backward


def test_a_page_of_a_rare_text_takes_no_block_apart_that_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    decoded = logs.decoded

    def count(piece: Slice) -> list[LogEntry | None]:
        taken.append(piece.count)
        return decoded(piece)

    monkeypatch.setattr(pages, "decoded", count)
    with job() as directory:
        entries, missing = listed_backward(directory, filter=LogFilter(contains="line 0023"))
        assert ([each.offset for each in entries], missing) == ([23], [])
        # The last block, whose end nothing bears out, and the one with the line.
        assert sum(taken) == 2 * BLOCK


def test_a_line_whose_text_is_damaged_is_named_though_the_block_has_nothing_to_find() -> None:
    with job() as directory:
        damage_line(directory, 23)
        assert listed_backward(directory, filter=NOWHERE) == ([], [(23, 23)])
        assert listed_filtered(directory, NOWHERE) == ([], [(23, 23)])


def test_what_a_writer_finds_after_a_crash_is_not_summed_up() -> None:
    with job(closed=False) as directory:
        os.truncate(directory.log / "entries.index", 0)
        damage_line(directory, 5)
        writer = LogWriter(directory.log)
        assert writer.last_offset == LINES
        writer.append([line(number) for number in range(LINES + 1, LINES + 2 * BLOCK + 1)])
        writer.close()
        assert listed_filtered(directory, NOWHERE) == ([], [(5, 5)])


def test_what_is_written_behind_a_hole_is_summed_up_again() -> None:
    with job(closed=False) as directory:
        path = directory.log / "entries"
        path.write_bytes(path.read_bytes() + b"\xff" * 300)
        writer = LogWriter(directory.log)
        lost = [(LINES + 1, writer.last_offset)]
        writer.append([line(number) for number in range(2 * BLOCK)])
        writer.close()
        assert listed_filtered(directory, NOWHERE) == ([], lost)
        with LogReader(directory.log) as log:
            pieces = [*log.blocks_before(2**60, min_level=0, wanted=lambda data: False)]
        assert lost[0][1] + 1 in [piece.begin for piece in pieces if piece.passed == BLOCK]


def test_a_log_of_an_earlier_coordinator_goes_on_with_sums() -> None:
    with job() as directory:
        (directory.log / "entries.sums").unlink()
        writer = LogWriter(directory.log)
        writer.append([line(number) for number in range(2 * BLOCK)])
        writer.close()
        with LogReader(directory.log) as log:
            pieces = [*log.blocks_before(2**60, min_level=0, wanted=lambda data: False)]
        assert sum(piece.passed for piece in pieces) == BLOCK
        assert listed_filtered(directory, NOWHERE) == ([], [])


def test_a_log_is_written_and_read_where_its_sums_cannot_be(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    logs.create(directory.log)
    (directory.log / "entries.sums").unlink()
    # As a file that cannot be made, on a full disk.
    (directory.log / "entries.sums").symlink_to(tmp_path / "nowhere" / "sums")
    writer = LogWriter(directory.log)
    writer.append([line(number) for number in range(1, LINES + 1)])
    writer.close()
    assert listed_filtered(directory, NOWHERE) == ([], [])
    damage_line(directory, 23)
    assert listed_filtered(directory, NOWHERE) == ([], [(23, 23)])
