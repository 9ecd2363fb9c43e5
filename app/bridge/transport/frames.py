"""Frames of HTTP/2 (RFC 9113): those that a client of unary calls has use for."""

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Bytes of a frame's content, and of a window, until something else is agreed.
MAX_CONTENT: Final = 16_384
FIRST_WINDOW: Final = 65_535
#: The largest window, and the last number that a client's stream can have.
MAX_WINDOW: Final = 2**31 - 1
LAST_STREAM: Final = 2**31 - 1

#: Length in two parts, kind, flags, stream.
_HEAD: Final = Struct(">HBBBI")
_PAIR: Final = Struct(">HI")
_NUMBER: Final = Struct(">I")
_MESSAGE: Final = Struct(">BI")


class Kind:
    """What a frame is (section 6). Plain numbers: an enum takes longer to compare."""

    DATA: Final = 0
    HEADERS: Final = 1
    RST_STREAM: Final = 3
    SETTINGS: Final = 4
    PUSH_PROMISE: Final = 5
    PING: Final = 6
    GOAWAY: Final = 7
    WINDOW_UPDATE: Final = 8
    CONTINUATION: Final = 9


class Flag:
    """Bits of a frame. END_STREAM is of DATA and HEADERS, ACK of SETTINGS and PING."""

    END_STREAM: Final = 0x1
    ACK: Final = 0x1
    END_HEADERS: Final = 0x4
    PADDED: Final = 0x8
    PRIORITY: Final = 0x20


class Setting:
    """What one side demands of the other (section 6.5.2)."""

    HEADER_TABLE_SIZE: Final = 1
    ENABLE_PUSH: Final = 2
    MAX_CONCURRENT_STREAMS: Final = 3
    INITIAL_WINDOW_SIZE: Final = 4
    MAX_FRAME_SIZE: Final = 5


#: Values that a peer may give to its settings, where not all are allowed.
_ALLOWED: Final[Mapping[int, range]] = {
    Setting.INITIAL_WINDOW_SIZE: range(MAX_WINDOW + 1),
    Setting.MAX_FRAME_SIZE: range(MAX_CONTENT, 2**24),
}
#: The length of what always has the same.
_LENGTHS: Final[Mapping[int, int]] = {Kind.RST_STREAM: 4, Kind.PING: 8, Kind.WINDOW_UPDATE: 4}
#: Those that are about the connection, and not about one of its streams.
_OF_CONNECTION: Final = frozenset((Kind.SETTINGS, Kind.PING, Kind.GOAWAY))


class ProtocolError(Exception):
    """The peer does not speak HTTP/2 as RFC 9113 has it; the connection is of no use."""


class Frame(NamedTuple):
    """A frame that was received."""

    kind: int
    flags: int
    stream: int
    content: bytes


class FrameReader:
    """Cuts what is received into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete. Raises `ProtocolError`."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            length = high << 8 | low
            if length > MAX_CONTENT:
                raise ProtocolError("a frame is longer than was agreed")
            start = at + _HEAD.size
            if start + length > end:
                break
            at = start + length
            yield Frame(kind, flags, stream & LAST_STREAM, data[start:at])
        self._rest = data[at:]


def check(frame: Frame) -> None:
    """Check what a frame other than DATA and HEADERS is about, and its length.

    Raises `ProtocolError`. A kind that is unknown here is passed over, as RFC 9113 demands.
    """
    if frame.kind in _OF_CONNECTION and frame.stream:
        raise ProtocolError("a frame about the connection names a stream")
    length = _LENGTHS.get(frame.kind)
    if length is not None and len(frame.content) != length:
        raise ProtocolError("a frame is not as long as its kind demands")


def block_of(frame: Frame) -> bytes:
    """Return what HEADERS hold beside padding and priority. Raises `ProtocolError`."""
    flags, content = frame.flags, frame.content
    if not flags & (Flag.PADDED | Flag.PRIORITY):
        return content
    start, end = 0, len(content)
    if flags & Flag.PADDED:
        if not content:
            raise ProtocolError("a padded frame is empty")
        start, end = 1, end - content[0]
    if flags & Flag.PRIORITY:
        start += 5
    if start > end:
        raise ProtocolError("a frame's padding is longer than the frame")
    return content[start:end]


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Write a frame."""
    return _head(len(content), kind, flags, stream) + content


def request(stream: int, block: bytes, message: bytes) -> bytes:
    """Write a unary gRPC request: its header block and its message."""
    return b"".join(
        (
            _head(len(block), Kind.HEADERS, Flag.END_HEADERS, stream),
            block,
            _head(5 + len(message), Kind.DATA, Flag.END_STREAM, stream),
            _MESSAGE.pack(0, len(message)),
            message,
        )
    )


def message_of(data: bytes) -> bytes | None:
    """Return the one message, not compressed, that gRPC's answer consists of; else None."""
    if len(data) < _MESSAGE.size:
        return None
    compressed, length = _MESSAGE.unpack_from(data)
    if compressed or length != len(data) - _MESSAGE.size:
        return None
    return data[_MESSAGE.size :]


def announced(data: bytearray) -> int:
    """Return the bytes of the message that begins, with gRPC's five before it.

    Those five if there are fewer bytes yet.
    """
    if len(data) < _MESSAGE.size:
        return _MESSAGE.size
    length: int = _MESSAGE.unpack_from(data)[1]
    return _MESSAGE.size + length


def settings(values: Mapping[int, int]) -> bytes:
    """Write what we demand."""
    pairs = b"".join(_PAIR.pack(name, value) for name, value in values.items())
    return frame(Kind.SETTINGS, 0, 0, pairs)


def settings_of(frame: Frame) -> Iterator[tuple[int, int]]:
    """Yield what the peer demands: names, also unknown ones, and values. Raises `ProtocolError`."""
    if len(frame.content) % _PAIR.size:
        raise ProtocolError("a SETTINGS frame has an odd length")
    for name, value in _PAIR.iter_unpack(frame.content):
        if name in _ALLOWED and value not in _ALLOWED[name]:
            raise ProtocolError("a setting has a value that it cannot have")
        yield name, value


def window_update(stream: int, size: int) -> bytes:
    """Let the peer send so many bytes more."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, _NUMBER.pack(size))


def reset(stream: int, code: int) -> bytes:
    """Write that a stream has no use any more."""
    return frame(Kind.RST_STREAM, 0, stream, _NUMBER.pack(code))


def number_of(frame: Frame) -> int:
    """Return the number of 31 bits with which WINDOW_UPDATE and GOAWAY begin."""
    if len(frame.content) < _NUMBER.size:
        raise ProtocolError("a frame is shorter than its kind demands")
    number: int = _NUMBER.unpack_from(frame.content)[0]
    return number & LAST_STREAM


def _head(length: int, kind: int, flags: int, stream: int) -> bytes:
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)
