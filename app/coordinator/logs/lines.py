"""From what a process writes to lines: splitting, progress bars, levels."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from app.coordinator.logs.json_level import JsonLevel
from app.coordinator.logs.levels import LEVELS, level_of
from app.coordinator.logs.log import MAX_MESSAGE
from app.coordinator.storage.untrusted_json import is_deep
from app.shortening import CUT, shortened
from generated.mindcoordinator.v1.watch_pb2 import LogLevel

#: Seconds between two states of a progress bar that are kept, and between two pieces of a line.
PROGRESS_INTERVAL: Final = 1.0

_MAX_FIELDS: Final = 64
_MAX_FIELD: Final = 1024
#: Stands for a field that cannot be written as text.
_TOO_DEEP: Final = "[left out: nested too deep]"
#: Integers that may have more than 64 bits.
_LONG: Final = re.compile(rb"[0-9]{19}")


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

    def conceals(self, lines: bytes) -> bool:
        """Whether something may have to be taken out of lines, each by itself."""

    def unfinished(self, line: bytes) -> bytes:
        """What becomes of a line of which more may follow."""

    def settled(self, line: bytes) -> int:
        """How many bytes of it can be shown by themselves, whatever follows."""


class _NothingConcealed:
    """The concealer of who has no secrets."""

    longest = 0

    def __call__(self, line: bytes, most: int | None = None) -> bytes:
        return line[:most]

    def conceals(self, lines: bytes) -> bool:
        return False

    def unfinished(self, line: bytes) -> bytes:
        return line

    def settled(self, line: bytes) -> int:
        return len(line)


NOTHING: Final = _NothingConcealed()


class Text(bytes):
    """A line without its break, or a piece of one; as it may be shown."""

    #: More of the line follows, or follows unless it ends here.
    partial = False
    #: It continues a line of which a piece was told.
    continues = False
    #: The level that a JSON line says which is too long to be read.
    level = ""


def parse_line(raw: bytes, *, default: LogLevel.ValueType, conceal: Concealer = NOTHING) -> Line:
    """A line without its break. Bytes that are not UTF-8 become replacement characters.

    `conceal` is for what JSON's escapes hide in a structured line; `raw` has gone through it.
    """
    if raw.startswith(b"{") and (line := _structured(bytes(raw), conceal)) is not None:
        return line
    text = raw.decode("utf-8", "replace")
    if isinstance(raw, Text) and (known := LEVELS.get(raw.level.upper())) is not None:
        return Line(known, text)
    level = level_of(text)
    return Line(default if level is None else level, text)


def _structured(raw: bytes, conceal: Concealer) -> Line | None:
    """A line that is a JSON object with `level` and `message`; no bytes raise anything."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if _LONG.search(raw) and not is_deep(raw):
        # orjson makes floats of integers that have more than 64 bits.
        value = json.loads(raw, parse_int=_integer)
    level, message = value.pop("level", None), value.pop("message", None)
    if not isinstance(level, str) or not isinstance(message, str):
        return None
    known = LEVELS.get(level.upper())
    if known is None:
        return None
    rank = value.pop("rank", 0)
    if not isinstance(rank, int) or not 0 <= rank < 2**31:
        rank = 0

    def shown(text: str) -> str:
        return conceal(text.encode()).decode()

    fields = {
        shortened(shown(key), _MAX_FIELD): shortened(shown(_field_text(item)), _MAX_FIELD)
        for key, item in list(value.items())[:_MAX_FIELDS]
    }
    if len(value) > _MAX_FIELDS:
        fields[CUT] = f"{len(value) - _MAX_FIELDS} more fields are left out"
    return Line(known, shown(message), int(rank), fields)


def _integer(digits: str) -> Any:
    """An integer of JSON; its text if it has more than 64 bits."""
    if len(digits) > 20:
        return digits
    value = int(digits)
    return value if -(2**63) <= value < 2**64 else digits


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
    a second. Of another line that is not finished within a second there are
    pieces, at most one a second: joined they are the line.
    """

    def __init__(self, *, clock: Callable[[], float], conceal: Concealer = NOTHING) -> None:
        self._clock = clock
        self._conceal = conceal
        #: Bytes of a line that are kept until it is complete.
        self._kept = MAX_MESSAGE + conceal.longest
        #: What is not told yet of the line, and how many bytes of it are, or were left out.
        self._line = bytearray()
        self._told = 0
        self._length = 0
        #: When the first byte came that is not told yet.
        self._since = 0.0
        self._level: JsonLevel | None = None
        self._returned = False
        # The next byte starts the line anew.
        self._overwritten = False
        #: The state that was shown last, before it was concealed.
        self._shown: bytes | None = None
        self._shown_at = -PROGRESS_INTERVAL

    @property
    def begins(self) -> bool:
        """Whether what comes next is the beginning of a line."""
        return not (self._length or self._returned)

    def feed(self, data: bytes) -> list[Text]:
        """The lines that `data` completes, without their breaks."""
        lines: list[Text] = []
        *whole, rest = data.split(b"\n")
        for part in whole:
            if self._length or self._returned or len(part) > MAX_MESSAGE or b"\r" in part:
                self._extend(part)
                self._finish(lines)
            else:
                # Most lines: nothing of it came before, and nothing of it is overwritten or cut.
                lines.append(Text(self._conceal(part)))
        waited = bool(self._line)
        self._extend(rest)
        if self._line and not waited:
            self._since = self._clock()
        return lines

    def due(self) -> float | None:
        """When `progress` has something to say, in the clock's seconds; None if never."""
        if not self._returned:
            if not self._line or not self._piece():
                return None
            return max(self._since, self._shown_at if self._told else 0) + PROGRESS_INTERVAL
        if not self._line or bytes(self._line) == self._shown:
            return None
        return self._shown_at + PROGRESS_INTERVAL

    def progress(self) -> list[Text]:
        """The state of a progress bar, or what was added to an unfinished line, if it is time for
        one."""
        due = self.due()
        if due is None or self._clock() < due:
            return []
        self._shown_at = self._clock()
        if not self._returned:
            return [self._take_piece()]
        self._shown = bytes(self._line)
        return [self._take(complete=False)]

    def end(self) -> list[Text]:
        """What is left when the stream has ended."""
        lines: list[Text] = []
        if self._line or self._length:
            # Who wrote it may have been ended within a credential.
            self._finish(lines, complete=False)
        return lines

    def _extend(self, data: bytes) -> None:
        for at, part in enumerate(data.split(b"\r")):
            if at:
                self._returned = self._overwritten = True
            if part:
                if self._overwritten:
                    self._begin()
                    self._overwritten = False
                self._length += len(part)
                room = max(self._kept - self._told - len(self._line), 0)
                if len(part) > room and not self._told and (self._line or part)[:1] == b"{":
                    self._look_for_level(part)
                self._line += part[:room]

    def _look_for_level(self, part: bytes) -> None:
        """Look at what comes next of a line that is too long to be kept."""
        if self._level is None:
            self._level = JsonLevel()
            self._level.feed(bytes(self._line))
        self._level.feed(part)

    def _begin(self) -> None:
        """The line begins anew."""
        self._line.clear()
        self._told = self._length = 0
        self._level = None

    def _finish(self, lines: list[Text], *, complete: bool = True) -> None:
        unchanged = self._returned and bytes(self._line) == self._shown
        nothing = self._told and not self._line and self._length == self._told
        if not unchanged and not nothing:
            lines.append(self._take(complete=complete))
        self._begin()
        self._returned = self._overwritten = False
        self._shown = None

    def _take(self, *, complete: bool) -> Text:
        line = bytes(self._line)
        if self._length > MAX_MESSAGE:
            mark = b" ... [cut: the line has %d bytes]" % self._length
            most = max(MAX_MESSAGE - self._told, 0)
            cut = self._conceal(line, most) if complete else self._conceal.unfinished(line)[:most]
            text = Text(cut + mark)
            if line.startswith(b"{") and not self._told:
                if self._level is None:
                    self._look_for_level(b"")
                assert self._level is not None
                text.level = self._level.name
        else:
            text = Text(self._conceal(line) if complete else self._conceal.unfinished(line))
        text.continues = bool(self._told)
        return text

    def _piece(self) -> int:
        """How many bytes of an unfinished line can be told by themselves."""
        line = bytes(self._line[: MAX_MESSAGE - self._told]) if self._told < MAX_MESSAGE else b""
        return _whole_characters(line[: self._conceal.settled(line)])

    def _take_piece(self) -> Text:
        size = self._piece()
        text = Text(self._conceal(bytes(self._line[:size])))
        text.partial, text.continues = True, bool(self._told)
        del self._line[:size]
        self._told += size
        self._since = self._clock()
        return text


def _whole_characters(data: bytes) -> int:
    """How many bytes of it are before a character that is cut off at the end (UTF-8)."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if length > back else len(data)
        if byte < 0x80:
            break
    return len(data)
