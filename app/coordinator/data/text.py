"""Text files: how much is read at once, and what is wrong with them from the start."""

import io
from typing import IO, Any, Final

from app.shortening import quoted

#: The longest record that is read, in bytes.
MAX_RECORD: Final = 64 * 1024 * 1024
#: What is read at once, in bytes.
BLOCK: Final = 1024 * 1024
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_OTHER_MARKS: Final = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}

_LONGEST_MARK: Final = 4


class BadData(Exception):
    """What is wrong with a file, and where."""


def shown_name(name: str) -> str:
    """A caller's or a file's name as a message repeats it: quoted, and not too long."""
    return quoted(name)


def begin(file: IO[bytes]) -> bytes:
    """The first bytes of a file, without the mark of UTF-8. Raises BadData for other marks."""
    start = b""
    while len(start) < _LONGEST_MARK and (more := file.read(_LONGEST_MARK - len(start))):
        start += more
    for mark, encoding in _OTHER_MARKS.items():
        if start.startswith(mark):
            raise BadData(f"line 1: it is {encoding}, not UTF-8; convert it")
    return start.removeprefix(_UTF8_MARK)


def as_text(file: IO[bytes]) -> io.TextIOWrapper:
    """A file as text, line ends as they are. Raises BadData for other encodings that show."""
    return io.TextIOWrapper(
        io.BufferedReader(_Joined(begin(file), file), BLOCK), encoding="utf-8", newline=""
    )


class _Joined(io.RawIOBase):
    """Bytes that were read already, and the file behind them."""

    def __init__(self, start: bytes, file: IO[bytes]) -> None:
        self._start = start
        self._file = file

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill what there is into `buffer`; returns how many bytes, 0 at the end."""
        block = self._start[: len(buffer)] or self._file.read(len(buffer))
        self._start = self._start[len(buffer) :]
        buffer[: len(block)] = block
        return len(block)
