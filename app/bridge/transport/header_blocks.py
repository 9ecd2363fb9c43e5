"""Header blocks of HTTP/2 (HPACK, RFC 7541), without a dynamic table on either side.

So equal blocks mean the same, and most of those of answers are equal: they are read once.
"""

from collections.abc import Iterable
from functools import lru_cache
from math import ceil
from typing import Final, TypeAlias

from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple

#: Names and values as they arrived.
Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]

#: Bytes of a block that is remembered: of an answer without details.
_LONGEST: Final = 1024
#: Bytes of the fields of a block, each with the 32 of RFC 9113, 6.5.2.
_MAX_FIELDS: Final = 64 * 1024


@lru_cache(maxsize=256)
def request_start(path: str, authority: str, timeout: float) -> bytes:
    """Write what calls of a method have in common; `timeout` is in seconds.

    It begins with the size of the table, which a peer that wants none demands (RFC 7541, 4.2).
    """
    milliseconds = min(max(ceil(timeout * 1000), 1), 99_999_999)
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode(
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "scaimind-gateway"),
            ("grpc-timeout", f"{milliseconds}m"),
        ],
        huffman=False,
    )


def with_metadata(start: bytes, metadata: Iterable[tuple[str, str]]) -> bytes:
    """Write the whole block of a call: keys in lower case, values of ASCII.

    This is done for each call, and takes the library several times as long.
    """
    parts = [start]
    for name, value in metadata:
        parts += (_never_indexed(name), _length(len(value)), value.encode("ascii"))
    return b"".join(parts)


def fields_of(block: bytes) -> Fields | None:
    """Return what an answer's block says; None if it cannot be read, or says too much."""
    return _remembered(block) if len(block) <= _LONGEST else _read(block)


def _read(block: bytes) -> Fields | None:
    decoder = Decoder(max_header_list_size=_MAX_FIELDS)
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    try:
        return tuple((name, value) for name, value in decoder.decode(block, raw=True))
    except HPACKError:
        return None


_remembered = lru_cache(maxsize=256)(_read)


@lru_cache(maxsize=64)
def _never_indexed(name: str) -> bytes:
    """Write a name and that no proxy may put its value into a table (RFC 7541, 6.2.3)."""
    value = "?"  # Of no field in the static table.
    return Encoder().encode([NeverIndexedHeaderTuple(name, value)], huffman=False)[:-2]


def _length(length: int) -> bytes:
    """Write how long a text is that is not in the Huffman code (RFC 7541, 5.1 and 5.2)."""
    if length < 0x7F:
        return _ONE_BYTE[length]
    out = bytearray((0x7F,))
    length -= 0x7F
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(256))
