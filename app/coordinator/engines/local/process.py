"""One of a run's training processes: what it writes, and how it ended."""

import fcntl
import os
import termios
import time
from array import array
from dataclasses import dataclass
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from app.coordinator.logs.lines import Concealer, Line, LineSplitter, parse_line
from app.coordinator.storage.untrusted_json import shown_text
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

_READ: Final = 64 * 1024
_LAST_WORDS: Final = 500


@dataclass(frozen=True, slots=True, eq=False)
class Pipe:
    """One of a rank's two outputs."""

    rank: "TrainingProcess"
    #: `stdout` or `stderr`.
    source: str
    #: The end to read, without blocking.
    file: int
    splitter: LineSplitter

    def read(self) -> list[LogEntry] | None:
        """The lines that were written meanwhile; None at its end."""
        data = os.read(self.file, _READ)
        if not data:
            return None
        return self._entries(self.splitter.feed(data))

    def unread(self) -> bool:
        """Whether something is in it that was not read."""
        waiting = array("i", [0])
        fcntl.ioctl(self.file, termios.FIONREAD, waiting)
        return waiting[0] > 0

    def progress(self) -> list[LogEntry]:
        """The state of a progress bar, if it is time for one."""
        return self._entries(self.splitter.progress())

    def end(self) -> list[LogEntry]:
        """What is left of an unfinished line."""
        return self._entries(self.splitter.end())

    def _entries(self, lines: list[bytes]) -> list[LogEntry]:
        return [self.rank.entry(self.source, raw) for raw in lines]


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
            Pipe(self, source, file, LineSplitter(clock=time.monotonic, conceal=conceal))
            for source, file in zip(("stdout", "stderr"), outputs, strict=True)
        ]

    def close(self) -> None:
        """Close its outputs."""
        for pipe in self.pipes:
            os.close(pipe.file)

    def entry(self, source: str, raw: bytes) -> LogEntry:
        """A line that it wrote, as a pipe's splitter returns it."""
        stderr = source == "stderr"
        default = LogLevel.LOG_LEVEL_WARNING if stderr else LogLevel.LOG_LEVEL_INFO
        line = parse_line(raw, default=default, conceal=self._conceal)
        if stderr and line.message.strip():
            self.last_words = shown_text(line.message.strip(), most=_LAST_WORDS)
        return stamped(source, line, node_id=self._node_id, rank=line.rank or self.number)


def stamped(source: str, line: Line, *, node_id: str, rank: int = 0) -> LogEntry:
    """A line as it goes into the log."""
    return LogEntry(
        level=line.level,
        message=line.message,
        timestamp=now(),
        source=source,
        rank=rank,
        node_id=node_id,
        fields=line.fields,
    )


def now() -> Timestamp:
    """This moment."""
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)
