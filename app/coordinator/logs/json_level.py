"""Finds the level of a JSON line that is too long to be kept, as it passes by."""

import re
from typing import Final

#: Bytes of a string that are kept.
_KEPT: Final = 32
_OF_STRING: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_MARK: Final = re.compile(rb'["\[\]{}:,]')


class JsonLevel:
    """The value of the outermost object's member `level`, wherever it is. Memory is bounded."""

    def __init__(self) -> None:
        #: The value, if it was there and is a string.
        self.name = ""
        self._depth = 0
        #: The string that is being read, and whether a backslash ended what was fed.
        self._string: bytes | None = None
        self._escaped = False
        #: The newest string of the outermost object, and the key whose value is next.
        self._newest = b""
        self._key: bytes | None = None

    def feed(self, data: bytes) -> None:
        """Look at the next bytes of the line."""
        at = 0
        while at < len(data):
            at = self._read_string(data, at) if self._string is not None else self._read(data, at)

    def _read_string(self, data: bytes, at: int) -> int:
        assert self._string is not None
        begin = at
        if self._escaped:
            self._escaped = False
            at += 1
        match = _OF_STRING.match(data, at)
        assert match is not None
        end = match.end()
        self._string = (self._string + data[begin:end])[:_KEPT]
        if end == len(data):
            return end
        if data[end : end + 1] == b'"':
            self._newest, self._string = self._string, None
            if self._depth == 1 and self._key == b"level":
                self.name = self._newest.decode("ascii", "replace")
                self._key = None
        else:
            self._escaped = True
        return end + 1

    def _read(self, data: bytes, at: int) -> int:
        match = _MARK.search(data, at)
        if match is None:
            return len(data)
        mark = match[0]
        if mark == b'"':
            self._string = b""
        elif mark in b"[{":
            self._depth += 1
        elif mark in b"]}":
            self._depth -= 1
        elif self._depth == 1:
            self._key = self._newest if mark == b":" else None
        return match.end()
