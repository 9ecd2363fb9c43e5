"""Whole lines that are read at once, and become entries together: how most of a log is written.

What a line becomes is what `LineSplitter`, `parse_line` and `Tracebacks` make of
it one by one. What these would have to look at more closely is left to them: lines with
carriage returns, credentials, bytes that are not UTF-8, JSON, and tracebacks.
"""

from typing import Final

from app.coordinator.logs.levels import MAX_HEAD, level_of, may_have_level
from app.coordinator.logs.lines import Concealer
from app.coordinator.logs.tracebacks import BEGINNING as TRACEBACK
from app.coordinator.storage.records import varint
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

#: The keys of an entry's fields `level` and `message`.
_LEVEL: Final = b"\x10"
_MESSAGE: Final = b"\x1a"
#: By its length in bytes, what stands before a message.
_HEADS: Final = (b"", *(_MESSAGE + varint(size) for size in range(1, MAX_HEAD + 1)))


class PlainLines:
    """Makes entries of one output's lines.

    An entry is what `LogEntry.SerializeToString` returns of it without an offset; the
    level comes first, and is there.
    """

    def __init__(self, *, default: LogLevel.ValueType, conceal: Concealer) -> None:
        """`default` is the level of lines that say none."""
        self._conceal = conceal
        self._default = _level_field(default)
        self._levels = {level: _level_field(level) for level in LogLevel.values()}

    def entries(self, data: bytes, rest: LogEntry) -> list[bytes] | None:
        """The entries of lines, each with its break; None if some are not plain.

        `rest` has what all of them have: when they were read, and who wrote them.
        """
        if (
            data.startswith(b"{")
            or b"\n{" in data
            or b"\r" in data
            or TRACEBACK in data
            or self._conceal.conceals(data)
        ):
            return None
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return None
        lines, texts = data.split(b"\n"), text.split("\n")
        # What is behind the last break.
        del lines[-1], texts[-1]
        end = rest.SerializeToString()
        if len(max(lines, key=len, default=b"")) > MAX_HEAD:
            return [
                self._level(text) + (_MESSAGE + varint(len(line)) if line else b"") + line + end
                for line, text in zip(lines, texts, strict=True)
            ]
        default, level, heads = self._default, self._level, _HEADS
        pattern = may_have_level(text)
        if pattern is None:
            levels = [level(each) for each in texts]
        else:
            match = pattern.match
            levels = [default if match(each) is None else level(each) for each in texts]
        return [
            first + heads[len(line)] + line + end for first, line in zip(levels, lines, strict=True)
        ]

    def _level(self, text: str) -> bytes:
        level = level_of(text)
        return self._default if level is None else self._levels[level]


def _level_field(level: LogLevel.ValueType) -> bytes:
    return _LEVEL + varint(level)
