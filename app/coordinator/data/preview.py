"""The first records of a source as JSON, for people who want to see what is in it."""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from app.shortening import CUT

#: Records that can be asked for, and bytes of each.
MOST_RECORDS: Final = 5
RECORD_BYTES: Final = 4096


class Preview:
    """Collects records until it has as many as were asked for."""

    def __init__(self, most: int = 0) -> None:
        #: How many records there is room for.
        self.room = most
        #: JSON, each cut at RECORD_BYTES.
        self.records: list[str] = []

    def add_text(self, text: bytes) -> None:
        """Add a record that is JSON in UTF-8 already."""
        self.room -= 1
        self.records.append(_cut(text.strip()))

    def add(self, record: Any) -> None:
        """Add a record of whatever values."""
        self.room -= 1
        writer = _Writer()
        try:
            writer.write(record)
        except (_Full, RecursionError):
            # The rest is cut, or is nested too deeply to be shown.
            self.records.append(_cut(writer.text.ljust(RECORD_BYTES + 1)))
        else:
            self.records.append(_cut(writer.text))


def _cut(text: bytes) -> str:
    if len(text) <= RECORD_BYTES:
        return text.decode()
    mark = CUT.encode()
    return text[: RECORD_BYTES - len(mark)].decode(errors="ignore").rstrip() + CUT


class _Full(Exception):
    """There is more than is shown."""


class _Writer:
    """Writes JSON until it is as long as a record may be: of a large one no more than that.

    What JSON has no type for is written as text, a number that is none as null.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._left = RECORD_BYTES

    @property
    def text(self) -> bytes:
        """What is written so far."""
        return b"".join(self._pieces)

    def write(self, value: Any) -> None:
        """Write a value. Raises _Full, RecursionError."""
        if isinstance(value, Mapping):
            self._put("{")
            for number, (key, each) in enumerate(value.items()):
                self._put(", " if number else "")
                self._put_text(str(key))
                self._put(": ")
                self.write(each)
            self._put("}")
        elif isinstance(value, list | tuple):
            self._put("[")
            for number, each in enumerate(value):
                self._put(", " if number else "")
                self.write(each)
            self._put("]")
        elif value is None or isinstance(value, bool | int | float):
            nan = isinstance(value, float) and not math.isfinite(value)
            self._put(json.dumps(None if nan else value))
        elif isinstance(value, bytes):
            self._put_text(f"({len(value)} bytes)")
        else:
            self._put_text(str(value))

    def _put_text(self, text: str) -> None:
        self._put(json.dumps(text[:RECORD_BYTES], ensure_ascii=False))

    def _put(self, text: str) -> None:
        # Half of a pair of surrogates is escaped, as JSON does.
        piece = text.encode(errors="backslashreplace")
        self._pieces.append(piece)
        self._left -= len(piece)
        if self._left < 0:
            raise _Full
