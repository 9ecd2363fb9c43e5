"""One of a run's training processes: what it writes, and how it ended."""

import fcntl
import os
import termios
import time
from array import array
from collections.abc import Callable
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from app.coordinator.logs.lines import Concealer, Line, LineSplitter, Text, parse_line
from app.coordinator.logs.new_entry import AnyEntry, NewEntry
from app.coordinator.logs.plain_lines import PlainLines
from app.coordinator.logs.tracebacks import Tracebacks
from app.coordinator.storage.untrusted_json import shown_text
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

#: Bytes that are read of an output at once.
_READ: Final = 64 * 1024
#: Of lines that say none, by their output.
_DEFAULT_LEVELS: Final = {
    "stdout": LogLevel.LOG_LEVEL_INFO,
    "stderr": LogLevel.LOG_LEVEL_WARNING,
}
_LAST_WORDS: Final = 500


class Pipe:
    """One of a rank's two outputs."""

    def __init__(
        self,
        rank: "TrainingProcess",
        source: str,
        file: int,
        *,
        conceal: Concealer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`source` is `stdout` or `stderr`; `file` is the end to read, without blocking."""
        self.rank = rank
        self.source = source
        self.file = file
        #: Whether the last read had as much as is read at once: more may be there already.
        self.full = False
        self.splitter = LineSplitter(clock=clock, conceal=conceal)
        self._plain = PlainLines(default=_DEFAULT_LEVELS[source], conceal=conceal)
        self._tracebacks = Tracebacks[NewEntry](clock=clock)
        #: The first piece of the line that is not finished.
        self._first: NewEntry | None = None

    def read(self) -> list[AnyEntry] | None:
        """The lines that were written meanwhile; None at its end."""
        data = os.read(self.file, _READ)
        if not data:
            return None
        self.full = len(data) == _READ
        # Whole lines are between the first break and the last.
        begin = 0 if self.splitter.begins else data.find(b"\n") + 1
        end = data.rfind(b"\n") + 1
        if begin == end:
            return [*self._entries(self.splitter.feed(data))]
        entries: list[AnyEntry] = [*self._entries(self.splitter.feed(data[:begin]))]
        lines = data[begin:end]
        plain = None
        if self._tracebacks.idle:
            plain = self._plain.entries(lines, self.rank.origin(self.source))
        if plain is None:
            entries += self._entries(self.splitter.feed(lines))
        else:
            entries += plain
            self.rank.note_last_words(self.source, lines)
        entries += self._entries(self.splitter.feed(data[end:]))
        return entries

    def unread(self) -> bool:
        """Whether something is in it that was not read."""
        waiting = array("i", [0])
        fcntl.ioctl(self.file, termios.FIONREAD, waiting)
        return waiting[0] > 0

    def progress(self) -> list[NewEntry]:
        """The state of a progress bar or what was added to an unfinished line, if it is time."""
        return self._entries(self.splitter.progress())

    def end(self) -> list[NewEntry]:
        """What is left of an unfinished line."""
        return self._entries(self.splitter.end())

    def _entries(self, texts: list[Text]) -> list[NewEntry]:
        return [self._entry(text) for text in texts]

    def _entry(self, text: Text) -> NewEntry:
        if text.continues and self._first is not None:
            first = self._first
            line = Line(first.entry.level, text.decode("utf-8", "replace"))
            new = NewEntry(self.rank.entry(self.source, line), block=first.block, continues=first)
        else:
            new = NewEntry(self.rank.entry(self.source, self.rank.parse(self.source, text)))
            new.block = self._tracebacks.take(new.entry.message, new)
            if new.block is not None:
                new.entry.level = LogLevel.LOG_LEVEL_ERROR
            self._first = new
        if text.partial:
            new.entry.fields["partial"] = "true"
        else:
            self._first = None
        return new


class TrainingProcess:
    """A process of a run, which runs in the run's sandbox."""

    def __init__(
        self,
        number: int,
        node_id: str,
        outputs: tuple[int, int],
        *,
        conceal: Concealer,
    ) -> None:
        """`outputs` are the ends to read of its stdout and stderr; `close` closes them.
        `conceal` takes out of its lines what is not to be shown."""
        self.number = number
        self.last_words = ""
        #: Its exit status, or minus the number of the signal that ended it; None while it lives.
        self.exit_code: int | None = None
        self._node_id = node_id
        self._conceal = conceal
        self.pipes = [
            Pipe(self, source, file, conceal=conceal)
            for source, file in zip(("stdout", "stderr"), outputs, strict=True)
        ]

    def close(self) -> None:
        """Close its outputs."""
        for pipe in self.pipes:
            os.close(pipe.file)

    def parse(self, source: str, raw: bytes) -> Line:
        """A line that it wrote, as a pipe's splitter returns it."""
        return parse_line(raw, default=_DEFAULT_LEVELS[source], conceal=self._conceal)

    def origin(self, source: str) -> LogEntry:
        """What all entries of plain lines have that are read now: time, source, rank and node."""
        return LogEntry(timestamp=now(), source=source, rank=self.number, node_id=self._node_id)

    def note_last_words(self, source: str, lines: bytes) -> None:
        """Take note of what it said last, of lines that went into the log together."""
        if source == "stderr":
            for line in reversed(lines.decode().split("\n")):
                if words := line.strip():
                    self.last_words = shown_text(words, most=_LAST_WORDS)
                    break

    def entry(self, source: str, line: Line) -> LogEntry:
        """A line that it wrote, or a piece of one, as it goes into the log."""
        if source == "stderr" and line.message.strip():
            self.last_words = shown_text(line.message.strip(), most=_LAST_WORDS)
        return stamped(source, line, node_id=self._node_id, rank=line.rank or self.number)


def stamped(source: str, line: Line, *, node_id: str, rank: int = 0) -> LogEntry:
    """A line as it goes into the log."""
    entry = LogEntry(
        level=line.level,
        message=line.message,
        timestamp=now(),
        source=source,
        rank=rank,
        node_id=node_id,
    )
    if line.fields:
        # Most have none, and giving none takes half as long again as all the rest.
        entry.fields.update(line.fields)
    return entry


def now() -> Timestamp:
    """This moment."""
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)
