"""Pages of a log, read piece by piece: what is live does not wait for a whole page.

In protobuf's wire format a message is its fields one after the other, and those of a part of
them are a message, too. So the bytes of a page are cut between its entries, and a few of them
are parsed, checked and written as JSON at a time.
"""

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Final, TypeAlias

from google.protobuf.message import DecodeError

from app.bridge.contract.breaches import Breach
from app.bridge.contract.fields import check_fields
from app.bridge.contract.logs import check_number, check_places
from app.bridge.streams.log_records import LogRecords
from app.errors import BrokenContract
from app.hub.upstream import LogPage, LogRecord
from app.log_filter import LogFilter
from generated.mindcoordinator.v1.watch_pb2 import ListJobLogsRequest, ListJobLogsResponse

Parse: TypeAlias = Callable[[bytes], ListJobLogsResponse]

#: Entries, and bytes, after which a piece ends: some 0.1 ms of work.
PIECE: Final = 32
_PIECE_BYTES: Final = 32 * 1024

#: Kinds of fields on the wire: a varint, bytes whose length stands before them, and those of a
#: fixed size.
_VARINT: Final = 0
_BYTES: Final = 2
_SIZES: Final = {1: 8, 5: 4}
#: Begins an entry: the number of the field, and its kind.
_ENTRY: Final = ListJobLogsResponse.DESCRIPTOR.fields_by_name["entries"].number << 3 | _BYTES
#: Other fields that are looked at one by one: what follows them is read in one go.
_OTHERS: Final = 100


def page_pieces(
    data: bytes,
    request: ListJobLogsRequest,
    log_filter: LogFilter,
    *,
    parse: Parse,
    reader: LogRecords,
) -> Generator[None, None, LogPage]:
    """Read an answer of ListJobLogs; yields after each piece of it, and returns the page.

    Raises `BrokenContract`.
    """
    records, rest = list[LogRecord](), list[bytes]()
    place = 0
    while place < len(data):
        end, entries = _piece(data, place)
        if not entries:
            end = _behind_field(data, place) if len(rest) < _OTHERS else len(data)
            rest.append(data[place:end])
        else:
            check_number(request, len(records) + entries)
            records += reader.read(_parsed(parse, data[place:end]).entries)
            yield
        place = end
    page = _parsed(parse, b"".join(rest))
    check_number(request, len(records) + len(page.entries))
    records += reader.read(page.entries)
    page.ClearField("entries")
    check_fields(page)
    check_places(request, page, records)
    return LogPage(
        epoch=page.epoch,
        records=records,
        next_after=page.next_after_offset,
        first_offset=page.first_offset,
        last_offset=page.last_offset,
        filter=log_filter,
        complete=page.complete,
        missing=[(each.first, each.last) for each in page.missing],
        next_before=page.next_before_offset,
    )


def _parsed(parse: Parse, data: bytes) -> ListJobLogsResponse:
    try:
        return parse(data)
    except DecodeError:
        raise BrokenContract(Breach.UNREADABLE, "the answer is not the right message") from None


def _piece(data: bytes, place: int) -> tuple[int, int]:
    """Return where the entries end that begin at a place, a piece of them, and how many they are.

    The last one may end behind the data: then it cannot be parsed.
    """
    begin, entries = place, 0
    # One that is cut off within its tag or length stays for the rest, which cannot be parsed then.
    with suppress(IndexError):
        while data[place] == _ENTRY and entries < PIECE and place - begin < _PIECE_BYTES:
            low, high = data[place + 1], data[place + 2]
            if low < 0x80:
                place += 2 + low
            elif high < 0x80:
                place += 3 + (low & 0x7F | high << 7)
            else:
                length, start = _varint(data, place + 1)
                place = start + length
            entries += 1
    return place, entries


def _behind_field(data: bytes, place: int) -> int:
    """Return where the field that begins at a place ends: at the end of the data if unclear."""
    with suppress(IndexError):
        tag, place = _varint(data, place)
        kind = tag & 7
        if tag == _ENTRY:
            # One whose tag is longer than it need be: it comes before those that follow.
            return len(data)
        if kind == _VARINT:
            return _varint(data, place)[1]
        if kind == _BYTES:
            length, place = _varint(data, place)
            return place + length
        if kind in _SIZES:
            return place + _SIZES[kind]
    return len(data)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Read a varint, which has 10 bytes at most; returns it, and where it ends.

    Raises `IndexError` if it is longer, or cut off.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise IndexError
