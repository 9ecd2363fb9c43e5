"""JSON of one line, by any rule of what ends a line."""

from typing import Final

import orjson

from app.bridge.converters import JsonObject

#: U+0085, U+2028 and U+2029 in UTF-8, where JSON holds them within texts only.
_LINE_BREAKS: Final = (
    (b"\xc2\x85", rb"\u0085"),
    (b"\xe2\x80\xa8", rb"\u2028"),
    (b"\xe2\x80\xa9", rb"\u2029"),
)


def one_line(value: JsonObject) -> bytes:
    """Write a value as JSON.

    JSON escapes what ASCII has of line breaks. Unicode has three more, by
    which some clients split a stream (Python's `str.splitlines`).
    """
    return with_escaped_breaks(orjson.dumps(value))


def with_escaped_breaks(data: bytes) -> bytes:
    """Escape those that JSON leaves as they are."""
    if b"\xe2\x80" in data or b"\xc2\x85" in data:
        for line_break, escaped in _LINE_BREAKS:
            data = data.replace(line_break, escaped)
    return data
