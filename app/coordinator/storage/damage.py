"""Finds the next good record behind bytes of a journal that are damaged."""

import os
from typing import Final

from app.coordinator.storage.records import (
    MAX_HEAD,
    MIN_RECORD,
    READ,
    Cursor,
    RecordKind,
    Slice,
    Stop,
    own_number,
    record_ends,
)

_WINDOW: Final = 2 * READ


def next_record(
    file: int, kind: RecordKind, cursor: Cursor, *, start: int, to_end: bool = False
) -> Cursor | None:
    """The place of the first good record at position `start` or behind it; None if there is none.

    Its number is above the cursor's. It can be read, and its number fits: no more
    records than the bytes between can hold are lost, or the record behind it has the
    next number, or it is the last. With `to_end` nothing but records follow it.
    The records of the journal are numbered.
    """
    size = os.fstat(file).st_size
    while start < size:
        data = os.pread(file, _WINDOW, start)
        # A record that begins in the first half is whole.
        for match in kind.beginning.finditer(data, 0, min(READ + MAX_HEAD, len(data))):
            at = match.start()
            if at >= READ:
                break
            number = own_number(data[at : at + MAX_HEAD], kind)
            if number is None or number <= cursor.number:
                continue
            place = Cursor(number - 1, start + at)
            if _is_good(data[at:], kind, cursor, place) and (
                not to_end or _reaches_end(file, kind, place, size)
            ):
                return place
        start += READ
    return None


def _is_good(data: bytes, kind: RecordKind, cursor: Cursor, place: Cursor) -> bool:
    """Whether `data` begins with a record that can be the one at `place`."""
    ends, stop = record_ends(data, kind, place.number + 1, most=1)
    if not ends or not kind.readable(next(Slice(data, ends, place).payloads())):
        return False
    if place.number - cursor.number <= (place.position - cursor.position) // MIN_RECORD:
        return True
    _, stop = record_ends(data[ends[0] :], kind, place.number + 2, most=1)
    return stop is not Stop.BROKEN


def _reaches_end(file: int, kind: RecordKind, place: Cursor, size: int) -> bool:
    """Whether nothing but records lie from a place to the end of the file."""
    number, position = place.number, place.position
    while position < size:
        ends, _ = record_ends(os.pread(file, READ, position), kind, number + 1)
        if not ends:
            return False
        number, position = number + len(ends), position + ends[-1]
    return True
