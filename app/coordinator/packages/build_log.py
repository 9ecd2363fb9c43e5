"""What a job's log is told of an installation: its lines within bounds, the last in any case."""

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from app.coordinator.logs.lines import Line, parse_line
from app.credentials import masked
from app.shortening import shortened
from generated.mindcoordinator.v1.watch_pb2 import LogLevel

#: Lines and bytes that are told as they come.
MAX_LINES: Final = 1000
MAX_BYTES: Final = 256 * 1024
#: Lines at the end that are told in any case, where the reason of a failure is.
_LAST: Final = 40
#: Characters of a reason.
_MAX_REASON: Final = 2000

#: The source of what uv says: a job decides some of it, and the coordinator's own lines are not so.
SOURCE: Final = "uv"


class Say(Protocol):
    """Adds lines to a job's log. Blocks shortly, and never raises."""

    def __call__(self, line: Line, *, source: str = "coordinator") -> None:
        """Add a line."""


class BuildLog:
    """Takes the lines of one program. For one thread."""

    def __init__(self, say: Say, *, places: Mapping[Path, str]) -> None:
        """`places` are paths of this machine, the longest first, and what stands for them."""
        self._say = say
        self._places = {os.fsencode(path): text.encode() for path, text in places.items()}
        self._lines_left = MAX_LINES
        self._bytes_left = MAX_BYTES
        self._held: deque[Line] = deque(maxlen=_LAST)
        self._held_count = 0
        self._last: deque[str] = deque(maxlen=_LAST)

    def take(self, raw: bytes) -> None:
        """Take a line that the program wrote."""
        for place, text in self._places.items():
            raw = raw.replace(place, text)
        read = parse_line(raw, default=LogLevel.LOG_LEVEL_INFO)
        line = Line(read.level, masked(read.message), fields=read.fields)
        self._last.append(line.message)
        self._lines_left -= 1
        self._bytes_left -= len(raw)
        if self._lines_left >= 0 and self._bytes_left >= 0:
            self._say(line, source=SOURCE)
        else:
            self._held.append(line)
            self._held_count += 1

    def close(self) -> None:
        """Add what was held back: how much it is, and the end of it."""
        left_out = self._held_count - len(self._held)
        if left_out:
            text = f"{left_out} lines of uv are left out here."
            self._say(Line(LogLevel.LOG_LEVEL_WARNING, text))
        for line in self._held:
            self._say(line, source=SOURCE)
        self._held.clear()

    def reason(self) -> str:
        """Return what the program said last, in one line: from its first error on, if any."""
        lines = list(self._last)
        for at, line in enumerate(lines):
            if line.startswith("error:"):
                lines = lines[at:]
                break
        return shortened(" ".join(" ".join(lines).split()), _MAX_REASON)
