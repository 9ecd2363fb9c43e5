"""Header blocks of HTTP/2 (HPACK, RFC 7541), without a dynamic table on either side.

So equal blocks mean the same, and most of those of answers are equal: they are read once.
"""

from collections.abc import Iterable
from functools import lru_cache
from math import ceil
from typing import Final, TypeAlias

from app.bridge.transport import huffman

#: Names and values as they arrived, without those that mean nothing to a call.
Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]

#: Numbers of the static table (appendix A).
_AUTHORITY, _PATH, _CONTENT_TYPE, _USER_AGENT = 1, 4, 31, 58
_LAST_STATIC = 61
_POST_HTTP: Final = b"\x83\x86"

#: Of the static table, the fields that say how an answer begins.
_STATUSES: Final = dict(
    enumerate((b"200", b"204", b"206", b"304", b"400", b"404", b"500"), start=8)
)

#: How a field begins that is not put into a table (6.2.2), and one that no proxy may put there
#: (6.2.3).
_PLAIN, _NEVER_INDEXED = 0x00, 0x10
#: Bytes of a block that is remembered: of an answer without details.
_LONGEST: Final = 1024


@lru_cache(maxsize=256)
def request_start(path: str, authority: str, timeout: float) -> bytes:
    """Write what calls of a method have in common; `timeout` is in seconds."""
    milliseconds = min(max(ceil(timeout * 1000), 1), 99_999_999)
    return b"".join(
        (
            _POST_HTTP,
            _number(_PATH, 4, _PLAIN) + _text(path),
            _number(_AUTHORITY, 4, _PLAIN) + _text(authority),
            _named("te", "trailers"),
            _number(_CONTENT_TYPE, 4, _PLAIN) + _text("application/grpc"),
            _number(_USER_AGENT, 4, _PLAIN) + _text("scaimind-gateway"),
            _named("grpc-timeout", f"{milliseconds}m"),
        )
    )


def with_metadata(start: bytes, metadata: Iterable[tuple[str, str]]) -> bytes:
    """Write the whole block of a call: keys in lower case, values of ASCII."""
    parts = [start]
    for name, value in metadata:
        parts += (_never_indexed(name), _number(len(value), 7, 0), value.encode("ascii"))
    return b"".join(parts)


def fields_of(block: bytes) -> Fields | None:
    """Return what an answer's block says; None if it cannot be read."""
    return _remembered(block) if len(block) <= _LONGEST else _read(block)


def _read(block: bytes) -> Fields | None:
    at, found = 0, []
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _read_number(block, at, 7)
                if not 0 < index <= _LAST_STATIC:
                    return None
                if index in _STATUSES:
                    found.append((b":status", _STATUSES[index]))
                continue
            if first & 0xE0 == 0x20:
                # The table's new size: what there is none of stays none.
                _, at = _read_number(block, at, 5)
                continue
            index, at = _read_number(block, at, 6 if first & 0x40 else 4)
            if index > _LAST_STATIC:
                return None
            # Of the static table's names none but the status means anything here.
            name = b":status" if index in _STATUSES else b""
            if not index:
                name, at = _read_text(block, at)
            value, at = _read_text(block, at)
            if name:
                found.append((name, value))
    except (IndexError, ValueError):
        return None
    return tuple(found)


_remembered = lru_cache(maxsize=256)(_read)


def _read_number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Read an integer (5.1) and where it ends. Raises `IndexError` if it is cut or too large."""
    most = (1 << bits) - 1
    number = block[at] & most
    at += 1
    if number < most:
        return number, at
    for shift in range(0, 28, 7):
        more = block[at]
        at += 1
        number += (more & 0x7F) << shift
        if more < 0x80:
            return number, at
    raise IndexError("a number of more than 28 bits")


def _read_text(block: bytes, at: int) -> tuple[bytes, int]:
    """Read a string (5.2) and where it ends. Raises `IndexError` if it is cut, and `ValueError`."""
    coded = block[at] & 0x80
    length, at = _read_number(block, at, 7)
    if at + length > len(block):
        raise IndexError("a text is cut")
    text = block[at : at + length]
    return huffman.decode(text) if coded else text, at + length


def _number(number: int, bits: int, first: int) -> bytes:
    """Write an integer behind the bits of `first`."""
    most = (1 << bits) - 1
    if number < most:
        return _ONE_BYTE[first | number]
    out = bytearray((first | most,))
    number -= most
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(text: str) -> bytes:
    data = text.encode("ascii")
    return _number(len(data), 7, 0) + data


def _named(name: str, value: str) -> bytes:
    return bytes((_PLAIN,)) + _text(name) + _text(value)


@lru_cache(maxsize=64)
def _never_indexed(name: str) -> bytes:
    return bytes((_NEVER_INDEXED,)) + _text(name)


_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(256))
