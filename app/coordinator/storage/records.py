"""Records of a journal: how they are framed, and where they and the reader are.

A record is a length-delimited protobuf field, `tag, varint length, payload`,
so that a slice of the file is a serialized message whose repeated field the
records are. Records are numbered densely from 1. In most journals a record
says its own number: the payload begins with its field 1. A reader and the next
writer then find their way behind bytes that are damaged on the disk.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import Final

CLASSES: Final = 4
#: Bytes that are read at once; the first record in them is always whole.
READ: Final = 256 * 1024
#: Payloads are at most this long.
MAX_PAYLOAD: Final = READ - 16
#: Bytes of the smallest record that can be, frame included.
MIN_RECORD: Final = 4
#: A record's own number is below it.
MAX_NUMBER: Final = 2**53
#: Bytes of the longest beginning of a record that has its length and its number.
MAX_HEAD: Final = 1 + 3 + 1 + 8
#: The key of field 1, a varint.
_NUMBER_KEY: Final = 0x08


@dataclass(frozen=True, slots=True)
class RecordKind:
    """What the records of a journal are."""

    #: The key of the field that they are.
    tag: int
    #: Whether a payload can be read. Asked where a record is looked for behind damaged bytes.
    readable: Callable[[bytes], bool]
    #: Whether a payload begins with the record's number as field 1.
    numbered: bool = True
    #: What may be the beginning of a record.
    beginning: re.Pattern[bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Make the pattern."""
        number = b"\x08[\x80-\xff]{0,7}[\x01-\x7f]" if self.numbered else b""
        pattern = re.escape(bytes((self.tag,))) + b"[\x80-\xff]{0,2}[\x00-\x7f]" + number
        # Overlapping candidates are found one by one.
        object.__setattr__(self, "beginning", re.compile(b"(?=(" + pattern + b"))", re.DOTALL))


@dataclass(frozen=True, slots=True)
class Cursor:
    """A reader's place: `number` records, `position` bytes lie before it.

    Records that are lost count, too.
    """

    number: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A place between two records: bytes before it, and records of each class before it."""

    position: int
    counts: tuple[int, ...]

    @property
    def number(self) -> int:
        """The number of the record before this place; 0 at the start."""
        return sum(self.counts)

    @property
    def cursor(self) -> Cursor:
        """This place for a reader."""
        return Cursor(self.number, self.position)

    def count(self, classes: range) -> int:
        """How many records of `classes` lie before it."""
        return sum(self.counts[kind] for kind in classes)


START: Final = Mark(0, (0,) * CLASSES)


@dataclass(frozen=True, slots=True)
class Slice:
    """Whole records as they are in the file, numbered densely."""

    data: bytes
    #: Where in `data` each of them ends.
    ends: list[int]
    #: Behind the last of them. Of a slice without records: behind those that are lost.
    cursor: Cursor
    #: How many records right before the first are lost; counted only by `blocks_with`.
    lost: int = 0
    #: Of a slice without records: how many right before its end were passed over, and their bytes.
    passed: int = 0
    passed_bytes: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.ends)

    @property
    def first(self) -> int:
        """The number of the first of them."""
        return self.cursor.number - len(self.ends) + 1

    @property
    def begin(self) -> int:
        """The number of the first that it is about: be it lost, or passed over."""
        return self.first - self.lost - self.passed

    @property
    def position(self) -> int:
        """How many bytes lie before the first of them."""
        return self.cursor.position - len(self.data)

    def payloads(self) -> Iterator[bytes]:
        """What is in them."""
        at = 0
        for end in self.ends:
            at += 1
            while self.data[at] > 0x7F:
                at += 1
            yield self.data[at + 1 : end]
            at = end

    def part(self, start: int, stop: int) -> "Slice":
        """The records from place `start` on, up to place `stop`."""
        begin = self.ends[start - 1] if start else 0
        ends = [end - begin for end in self.ends[start:stop]]
        size = ends[-1] if ends else 0
        return Slice(
            self.data[begin : begin + size],
            ends,
            Cursor(self.first - 1 + start + len(ends), self.position + begin + size),
        )


class Stop(Enum):
    """Why no further record was found."""

    #: There are as many as were asked for, or nothing more is there.
    END = auto()
    #: Its end is not there yet: it is being written, or the bytes that were read end before.
    PARTIAL = auto()
    #: What is there is no record, or not the one whose turn it is.
    BROKEN = auto()


def varint(value: int) -> bytes:
    """A number of 0 and above as protobuf writes it."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def frame_head(tag: int, size: int) -> bytes:
    """What stands before a payload of so many bytes."""
    return bytes((tag,)) + varint(size)


@cache
def short_heads(tag: int) -> tuple[bytes, ...]:
    """What stands before payloads as short as most, by their bytes."""
    return tuple(frame_head(tag, size) for size in range(1024))


def record_ends(
    data: bytes, kind: RecordKind, number: int, *, most: int = READ
) -> tuple[list[int], Stop]:
    """Where each whole record in `data` ends, and why there are no more; at most `most`.

    The first has number `number`.
    """
    ends: list[int] = []
    at, size, tag, numbered = 0, len(data), kind.tag, kind.numbered
    rest = _rest_of(number)
    while at < size and len(ends) < most:
        if data[at] != tag:
            return ends, Stop.BROKEN
        at += 1
        length = shift = 0
        while True:
            if at >= size:
                return ends, Stop.PARTIAL
            byte = data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 14:
                return ends, Stop.BROKEN
        if length > MAX_PAYLOAD:
            return ends, Stop.BROKEN
        if numbered:
            low = number & 0x7F
            own = bytes((_NUMBER_KEY, low | 0x80 if rest else low)) + rest
            if not data.startswith(own, at):
                # Its beginning may be all that is there.
                part = data[at : at + len(own)]
                cut = len(part) < len(own) and own.startswith(part) and len(own) <= length
                return ends, Stop.PARTIAL if cut else Stop.BROKEN
            if len(own) > length:
                return ends, Stop.BROKEN
            number += 1
            if low == 0x7F:
                rest = _rest_of(number)
        at += length
        if at > size:
            return ends, Stop.PARTIAL
        ends.append(at)
    return ends, Stop.END


def _rest_of(number: int) -> bytes:
    """The bytes of a varint behind its first."""
    return varint(number >> 7) if number > 0x7F else b""


def own_number(head: bytes, kind: RecordKind) -> int | None:
    """The number that a record says it has, from its first MAX_HEAD bytes; None if it is none."""
    match = kind.beginning.match(head)
    if match is None:
        return None
    length, at = _read_varint(head, 1)
    if length > MAX_PAYLOAD:
        return None
    number, end = _read_varint(head, at + 1)
    return number if number < MAX_NUMBER and end - at <= length else None


def record_size(head: bytes) -> int:
    """Bytes of the record that begins with `head`, of which `own_number` returned a number."""
    length, at = _read_varint(head, 1)
    return at + length


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends. The varint has to be whole."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
