"""Pages of logs are read piece by piece: what is live does not wait for whole pages."""

import asyncio
from collections.abc import Generator
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import event, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from app.bridge.client import CoordinatorClient
from app.bridge.contract.breaches import Breach
from app.bridge.contract.fields import check_fields
from app.bridge.contract.logs import check_places
from app.bridge.converters import converter_of
from app.bridge.settings import UpstreamSettings
from app.bridge.streams.json_lines import one_line
from app.bridge.streams.log_pages import PIECE, page_pieces
from app.bridge.streams.log_records import LogRecords
from app.caller import Caller
from app.errors import BrokenContract
from app.hub.upstream import LogPage, LogRecord
from app.log_filter import LogFilter
from app.tasks.turns import Turns
from generated.mindcoordinator.v1.watch_pb2 import (
    LOG_LEVEL_ERROR,
    LOG_LEVEL_INFO,
    ListJobLogsRequest,
    ListJobLogsResponse,
    LogEntry,
    LogPosition,
    LogRange,
)
from tests.scripted_coordinator import ScriptedCoordinator

R = TypeVar("R")


def asked(**fields: Any) -> ListJobLogsRequest:
    return ListJobLogsRequest(
        job_id="j", after=LogPosition(epoch="e1"), **{"page_size": 1000, **fields}
    )


def page(*offsets: int, size: int = 10, **fields: Any) -> ListJobLogsResponse:
    entries = [
        LogEntry(offset=n, level=LOG_LEVEL_INFO, message=str(n).ljust(size, "x")) for n in offsets
    ]
    last = max(offsets, default=0)
    told = {"epoch": "e1", "next_after_offset": last, "first_offset": 1, "last_offset": last}
    return ListJobLogsResponse(entries=entries, **{**told, **fields})


def read(data: bytes, request: ListJobLogsRequest | None = None) -> tuple[LogPage, int]:
    """Read a page; and how many pieces it had."""
    pieces = page_pieces(
        data,
        request or asked(),
        LogFilter(),
        parse=ListJobLogsResponse.FromString,
        reader=LogRecords(),
    )
    return result_of(pieces)


def result_of(pieces: Generator[None, None, R]) -> tuple[R, int]:
    count = 0
    while True:
        try:
            next(pieces)
        except StopIteration as stopped:
            return stopped.value, count
        count += 1


def record(entry: LogEntry) -> LogRecord:
    return LogRecord(entry.offset, entry.level, one_line(converter_of(LogEntry)(entry)))


class Noted(Turns):
    """Turns that end with each piece, and note what others had meanwhile."""

    def __init__(self) -> None:
        super().__init__(clock=count(step=Turns.WORK).__next__)
        self.of_others = 0
        self.while_read: list[int] = []

    async def have_others(self) -> None:
        while True:
            self.of_others += 1
            await asyncio.sleep(0)

    async def run(self, work: Generator[None, None, R]) -> R:
        before = self.of_others
        result = await super().run(work)
        self.while_read.append(self.of_others - before)
        return result


async def test_others_have_their_turns_while_a_page_that_was_asked_for_is_read(
    channel: grpc.aio.Channel,
    settings: UpstreamSettings,
    coordinator: ScriptedCoordinator,
    caller: Caller,
) -> None:
    coordinator.answer("ListJobLogs", page(*range(1, 1001)))
    turns = Noted()
    client = CoordinatorClient(channel=channel, settings=settings, turns=turns)
    others = asyncio.create_task(turns.have_others(), name="others")
    found = await client.list_job_logs(
        caller, "j", log_filter=LogFilter(), limit=1000, after=("e1", 0)
    )
    others.cancel()
    assert [each.offset for each in found.records] == [*range(1, 1001)]
    [had] = turns.while_read
    assert had > 1000 // PIECE


def test_in_no_piece_more_than_a_few_entries_are_parsed() -> None:
    parsed: list[int] = []

    def parse(data: bytes) -> ListJobLogsResponse:
        message = ListJobLogsResponse.FromString(data)
        parsed.append(len(message.entries))
        return message

    told = page(*range(1, 1_001))
    data = told.SerializeToString()
    pieces = page_pieces(data, asked(), LogFilter(), parse=parse, reader=LogRecords())
    made, count = result_of(pieces)
    assert max(parsed) == PIECE
    assert sum(parsed) == 1_000
    assert count == len(parsed) - 1
    assert made.records == [record(entry) for entry in told.entries]


def test_long_entries_are_a_piece_each() -> None:
    told = page(1, 2, 3, size=100_000)
    made, count = read(told.SerializeToString())
    assert count == 3
    assert made.records == [record(entry) for entry in told.entries]


@examples(deadline=None)
@given(sizes=st.lists(st.integers(0, 20_000), max_size=70), lost=st.integers(0, 5))
def test_all_of_a_page_is_read(sizes: list[int], lost: int) -> None:
    told = page(*range(1, len(sizes) + 1), next_after_offset=len(sizes) + lost, complete=True)
    told.last_offset += lost
    for entry, size in zip(told.entries, sizes, strict=True):
        entry.message = "m" * size
    if lost:
        told.missing.append(LogRange(first=len(sizes) + 1, last=len(sizes) + lost))
    made, _ = read(told.SerializeToString())
    assert made == LogPage(
        epoch="e1",
        records=[record(entry) for entry in told.entries],
        next_after=len(sizes) + lost,
        first_offset=1,
        last_offset=len(sizes) + lost,
        complete=True,
        missing=[(len(sizes) + 1, len(sizes) + lost)] if lost else [],
    )


@pytest.mark.parametrize(
    "others",
    [
        # Fields of a newer contract, of each kind: a varint, 8 bytes, bytes, a group, 4 bytes.
        b"\xc0\x3e\x05",
        b"\xc1\x3e12345678",
        b"\xc2\x3e\x02\x12\x00",
        b"\xc3\x3e\x12\x02\x08\x07\xc4\x3e",
        b"\xc5\x3e1234",
        b"\xc0\x3e\x05" * 1_000,
        # The number of entries, but not their kind.
        b"\x10\x05",
    ],
)
def test_other_fields_between_the_entries_change_nothing(others: bytes) -> None:
    parts = [page(1, 2).SerializeToString(), page(3).SerializeToString()]
    made, _ = read(others.join(parts) + others)
    assert made == read(page(1, 2, 3).SerializeToString())[0]


@examples(deadline=None)
@given(cut=st.integers(1, 60), entries=st.integers(1, 3))
def test_what_is_cut_off_is_not_read(cut: int, entries: int) -> None:
    data = page(*range(1, entries + 1)).SerializeToString()
    part = data[:-cut]
    try:
        ListJobLogsResponse.FromString(part)
    except DecodeError:
        with pytest.raises(BrokenContract) as broken:
            read(part)
        assert broken.value.breach == Breach.UNREADABLE
    else:
        event("cut where a field ends: a message without what follows")


#: Of an entry: its offset again, a text that is none, an unknown field, a group's end.
ODD_FIELDS = (b"\x08\x09", b"\x1a\x01\xff", b"\xf8\x01\x01", b"\x0c")


def varint(value: int, *, longer: int = 0) -> bytes:
    """A varint; `longer` than it need be, by so many bytes that say nothing."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    if longer:
        data[-1] |= 0x80
        data += b"\x80" * (longer - 1) + b"\0"
    return bytes(data)


@st.composite
def fields_as_they_come(draw: st.DrawFn) -> bytes:
    """Fields of a page as another program may write them, or a hostile one."""
    longer = st.sampled_from([0, 0, 0, 1, 2, 4, 8])
    data = b""
    offset = 0
    for kind in draw(st.lists(st.integers(0, 7), max_size=12)):
        if kind <= 2:
            offset += 1
            body = LogEntry(offset=offset, level=LOG_LEVEL_INFO, message="m").SerializeToString()
            if kind == 2:
                body += draw(st.sampled_from(ODD_FIELDS))
            data += varint(18, longer=draw(longer)) + varint(len(body), longer=draw(longer)) + body
        elif kind == 3:
            data += varint(draw(st.sampled_from([24, 32, 40, 48, 64])), longer=draw(longer))
            data += varint(draw(st.integers(0, 5)), longer=draw(longer))
        elif kind == 4:
            told = draw(st.sampled_from([b"e1", b"e2", b"\xff"]))
            data += b"\x0a" + varint(len(told)) + told
        elif kind == 5:
            lost = LogRange(first=offset + 1, last=offset + 1).SerializeToString()
            data += b"\x3a" + varint(len(lost), longer=draw(longer)) + lost
            offset += 1
        else:
            # Any number, any kind; of the kinds there are six.
            data += varint(draw(st.integers(0, 80))) + draw(st.binary(max_size=9))
    return data[: len(data) - draw(st.sampled_from([0, 0, 0, 1, 2, 5]))]


@examples(deadline=None, max_examples=300)
@given(data=fields_as_they_come())
@example(data=b"\x92\x00\x02\x08\x01" + b"\x12\x02\x08\x02")
def test_whatever_comes_is_read_as_the_generated_code_reads_it(data: bytes) -> None:
    # Later fields count: what comes may say something else.
    told = ListJobLogsResponse(epoch="e1", next_after_offset=99, first_offset=1, last_offset=99)
    data = told.SerializeToString() + data
    try:
        expected = whole(data)
    except BrokenContract:
        with pytest.raises(BrokenContract):
            read(data)
    else:
        event("read")
        assert read(data)[0] == expected


def whole(data: bytes) -> LogPage:
    """Read a page in one go, all of it by the generated code."""
    try:
        message = ListJobLogsResponse.FromString(data)
    except DecodeError:
        raise BrokenContract(Breach.UNREADABLE, "") from None
    check_fields(message)
    records = [record(entry) for entry in message.entries]
    check_places(asked(), message, records)
    return LogPage(
        epoch=message.epoch,
        records=records,
        next_after=message.next_after_offset,
        first_offset=message.first_offset,
        last_offset=message.last_offset,
        complete=message.complete,
        missing=[(each.first, each.last) for each in message.missing],
        next_before=message.next_before_offset,
    )


@pytest.mark.parametrize("tag", [b"", b"\x12", b"\x0a", b"\x18"])
def test_a_number_without_an_end_is_not_read(tag: bytes) -> None:
    with pytest.raises(BrokenContract) as broken:
        read(page(1).SerializeToString() + tag + b"\xff" * 1_000_000)
    assert broken.value.breach == Breach.UNREADABLE


@pytest.mark.parametrize(
    ("request_", "told", "breach"),
    [
        (asked(page_size=40), page(*range(1, 42)), Breach.PAGE),
        (asked(min_level=LOG_LEVEL_ERROR), page(1), Breach.LEVEL),
        (asked(), page(*range(1, 50), 49), Breach.ORDER),
        (asked(), page(*range(1, 33), 32), Breach.ORDER),
        (asked(), page(0), Breach.VALUE),
        (asked(), page(1, epoch="E 1"), Breach.EPOCH),
        (asked(), page(1, missing=[LogRange(first=1, last=1)]), Breach.ORDER),
        (asked(), page(1, first_offset=-1), Breach.VALUE),
    ],
)
def test_a_page_that_breaks_the_contract(
    request_: ListJobLogsRequest, told: ListJobLogsResponse, breach: Breach
) -> None:
    with pytest.raises(BrokenContract) as broken:
        read(told.SerializeToString(), request_)
    assert broken.value.breach == breach


def test_the_parts_of_a_page_follow_each_other() -> None:
    made, _ = read(page(*range(1, 101), size=1_000).SerializeToString())
    made = replace(made, verdicts=[n % 3 == 0 for n in range(100)], next_after=120)
    parts = list(made.parts(10_000))
    assert len(parts) > 5
    assert [each for part in parts for each in part.records] == made.records
    assert [each for part in parts for each in part.verdicts or ()] == made.verdicts
    assert [part.next_after for part in parts] == [
        *(part.records[-1].offset for part in parts[:-1]),
        120,
    ]
    assert list(made.parts(10**9)) == [made]
    nothing = replace(made, records=[], verdicts=[])
    assert list(nothing.parts(1)) == [nothing]
