"""Reading a JSON array element by element."""

import json
import re
import sys
from collections.abc import Iterator
from typing import IO, Any, Final, NoReturn

from app.coordinator.data.text import BLOCK, MAX_RECORD, BadData, as_text


class Elements:
    """The elements of a JSON array, one after the other: never all of it in memory."""

    _BLANK: Final = re.compile(r"[ \t\r\n]*")

    def __init__(self, file: IO[bytes]) -> None:
        self._text = as_text(file)
        self._buffer = ""
        self._at = 0
        #: Lines before the buffer.
        self._line = 1
        self._over = False
        self._decode = json.JSONDecoder(parse_constant=self._not_json).raw_decode

    def each(self) -> Iterator[Any]:
        """Yield them. Raises BadData that names the line."""
        if self._next() != "[":
            raise BadData("it is not a JSON array of objects")
        self._at += 1
        if self._next() != "]":
            while True:
                yield self._element()
                mark = self._next()
                if mark not in (",", "]"):
                    self._fail("it is not JSON (',' or ']' is expected)")
                if mark == "]":
                    break
                self._at += 1
                self._next()
        self._at += 1
        if self._next():
            self._fail("there is content after the end of the array")

    def _element(self) -> Any:
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                # It may be whole, and wrong; that shows when no more comes.
                if self._over:
                    self._fail(f"it is not JSON ({error.msg})", error.pos)
                if len(self._buffer) - self._at > MAX_RECORD:
                    self._fail(f"it is not JSON, or a record is longer than {MAX_RECORD} bytes")
                self._more()
            except ValueError:
                # The only other one that the decoder raises (sys.set_int_max_str_digits).
                limit = sys.get_int_max_str_digits()
                self._fail(f"a number has more than the {limit} digits that are read")
            except RecursionError:
                self._fail("it is nested too deeply")
            else:
                # A number at the end of the buffer may go on.
                if end < len(self._buffer) or self._over:
                    self._at = end
                    return value
                self._more()

    def _next(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            blank = self._BLANK.match(self._buffer, self._at)
            assert blank is not None
            self._at = blank.end()
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._over:
                return ""
            self._more()

    def _more(self) -> None:
        """Read on, twice as much as there is: a long record is tried a few times only."""
        self._line += self._buffer.count("\n", 0, self._at)
        rest = self._buffer[self._at :]
        try:
            block = self._text.read(max(BLOCK, len(rest)))
        except UnicodeDecodeError:
            self._at, self._buffer = 0, rest
            self._fail("the content after it is not UTF-8")
        self._over = not block
        self._at, self._buffer = 0, rest + block

    def _not_json(self, constant: str) -> NoReturn:
        self._fail(f"{constant} is not JSON")

    def _fail(self, problem: str, at: int | None = None) -> NoReturn:
        end = self._at if at is None else at
        raise BadData(f"line {self._line + self._buffer.count(chr(10), 0, end)}: {problem}")
