"""From what a process writes to lines: splitting, progress bars, levels."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import orjson

from app.coordinator.logs.log import MAX_MESSAGE
from generated.mindcoordinator.v1.watch_pb2 import LogLevel

#: Seconds between two states of a progress bar that are kept.
PROGRESS_INTERVAL: Final = 1.0

_LEVELS: Final = {
    "TRACE": LogLevel.LOG_LEVEL_DEBUG,
    "DEBUG": LogLevel.LOG_LEVEL_DEBUG,
    "INFO": LogLevel.LOG_LEVEL_INFO,
    "NOTICE": LogLevel.LOG_LEVEL_INFO,
    "WARN": LogLevel.LOG_LEVEL_WARNING,
    "WARNING": LogLevel.LOG_LEVEL_WARNING,
    "ERROR": LogLevel.LOG_LEVEL_ERROR,
    "CRITICAL": LogLevel.LOG_LEVEL_ERROR,
    "FATAL": LogLevel.LOG_LEVEL_ERROR,
}
_NAMES = "|".join(_LEVELS)
# `ERROR: x`, `WARNING root x`, `[info] x`, `Warning: x`; not `Error handling is on`.
_LEADING: Final = re.compile(
    rf"\s*(?:({_NAMES})(?=[\s:|\-\]]|$)|\[\s*({_NAMES}|{_NAMES.lower()})\s*\]"
    rf"|({_NAMES.lower()}|{_NAMES.title()})(?=:))"
)
_MAX_FIELDS: Final = 64
_MAX_FIELD: Final = 1024
#: Stands for a field that cannot be written as text.
_TOO_DEEP: Final = "[left out: nested too deep]"


@dataclass(frozen=True, slots=True)
class Line:
    """A line with what it says about itself."""

    level: LogLevel.ValueType
    message: str
    rank: int = 0
    fields: dict[str, str] = field(default_factory=dict)


class Concealer(Protocol):
    """Takes out of lines what is not to be shown; see `app.coordinator.jobs.secrets`."""

    #: Bytes of the longest text that it takes out.
    longest: int

    def __call__(self, line: bytes, most: int | None = None) -> bytes:
        """What becomes of the first `most` bytes of a line; of the whole unless given."""

    def unfinished(self, line: bytes) -> bytes:
        """What becomes of a line of which more may follow."""


class _NothingConcealed:
    """The concealer of who has no secrets."""

    longest = 0

    def __call__(self, line: bytes, most: int | None = None) -> bytes:
        return line[:most]

    def unfinished(self, line: bytes) -> bytes:
        return line


NOTHING: Final = _NothingConcealed()


def parse_line(raw: bytes, *, default: LogLevel.ValueType, conceal: Concealer = NOTHING) -> Line:
    """A line without its break. Bytes that are not UTF-8 become replacement characters.

    `conceal` is for what JSON's escapes hide in a structured line; `raw` has gone through it.
    """
    if raw.startswith(b"{") and (line := _structured(raw, conceal)) is not None:
        return line
    text = raw.decode("utf-8", "replace")
    if match := _LEADING.match(text):
        return Line(_LEVELS[next(name for name in match.groups() if name).upper()], text)
    return Line(default, text)


def _structured(raw: bytes, conceal: Concealer) -> Line | None:
    """A line that is a JSON object with `level` and `message`; no bytes raise anything."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    level, message = value.pop("level", None), value.pop("message", None)
    if not isinstance(level, str) or not isinstance(message, str):
        return None
    known = _LEVELS.get(level.upper())
    if known is None:
        return None
    rank = value.pop("rank", 0)
    if not isinstance(rank, int) or not 0 <= rank < 2**31:
        rank = 0

    def shown(text: str) -> str:
        return conceal(text.encode()).decode()

    fields = {
        shown(key)[:_MAX_FIELD]: shown(_field_text(item))[:_MAX_FIELD]
        for key, item in list(value.items())[:_MAX_FIELDS]
    }
    return Line(known, shown(message), int(rank), fields)


def _field_text(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # It reads 1,024 levels and writes 254.
        return _TOO_DEEP


class LineSplitter:
    """Cuts a stream of bytes into lines, in bounded memory.

    A line is concealed first; then one of more than MAX_MESSAGE bytes is cut,
    with a mark that tells its length. What a carriage return overwrites is
    dropped: of a progress bar the last state is kept, and meanwhile one state
    a second.
    """

    def __init__(self, *, clock: Callable[[], float], conceal: Concealer = NOTHING) -> None:
        self._clock = clock
        self._conceal = conceal
        #: Bytes of a line that are kept until it is complete.
        self._kept = MAX_MESSAGE + conceal.longest
        self._line = bytearray()
        self._length = 0
        self._returned = False
        # The next byte starts the line anew.
        self._overwritten = False
        #: The state that was shown last, before it was concealed.
        self._shown: bytes | None = None
        self._shown_at = -PROGRESS_INTERVAL

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their breaks."""
        lines: list[bytes] = []
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._extend(part)
            self._finish(lines)
        self._extend(rest)
        return lines

    def due(self) -> float | None:
        """When `progress` has something to say, in the clock's seconds; None if never."""
        if not self._returned or not self._line or bytes(self._line) == self._shown:
            return None
        return self._shown_at + PROGRESS_INTERVAL

    def progress(self) -> list[bytes]:
        """The state of a progress bar, if it is time for one."""
        due = self.due()
        if due is None or self._clock() < due:
            return []
        self._shown, self._shown_at = bytes(self._line), self._clock()
        return [self._take(complete=False)]

    def end(self) -> list[bytes]:
        """What is left when the stream has ended."""
        lines: list[bytes] = []
        if self._line or self._length:
            self._finish(lines)
        return lines

    def _extend(self, data: bytes) -> None:
        for at, part in enumerate(data.split(b"\r")):
            if at:
                self._returned = self._overwritten = True
            if part:
                if self._overwritten:
                    self._line.clear()
                    self._length = 0
                    self._overwritten = False
                self._length += len(part)
                self._line += part[: self._kept - len(self._line)]

    def _finish(self, lines: list[bytes]) -> None:
        if not self._returned or bytes(self._line) != self._shown:
            lines.append(self._take(complete=True))
        self._line.clear()
        self._length = 0
        self._returned = self._overwritten = False
        self._shown = None

    def _take(self, *, complete: bool) -> bytes:
        line = bytes(self._line)
        if self._length > MAX_MESSAGE:
            mark = b" ... [cut: the line has %d bytes]" % self._length
            return self._conceal(line, MAX_MESSAGE) + mark
        return self._conceal(line) if complete else self._conceal.unfinished(line)
