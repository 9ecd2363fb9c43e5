"""One of a run's training processes, from its start to its end."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

from .confinement import Confinement
from .lines import Line, LineSplitter, parse_line

_READ: Final = 64 * 1024
_LAST_WORDS: Final = 500


@dataclass(frozen=True, slots=True, eq=False)
class Pipe:
    """One of a rank's two outputs."""

    rank: "Rank"
    #: `stdout` or `stderr`.
    source: str
    file: IO[bytes]
    splitter: LineSplitter

    def read(self) -> list[LogEntry] | None:
        """The lines that were written meanwhile; None at its end."""
        data = os.read(self.file.fileno(), _READ)
        if not data:
            return None
        return self._entries(self.splitter.feed(data))

    def progress(self) -> list[LogEntry]:
        """The state of a progress bar, if it is time for one."""
        return self._entries(self.splitter.progress())

    def end(self) -> list[LogEntry]:
        """What is left of an unfinished line."""
        return self._entries(self.splitter.end())

    def _entries(self, lines: list[bytes]) -> list[LogEntry]:
        return [self.rank.entry(self.source, raw) for raw in lines]


class Rank:
    """A process in a session of its own, confined to what its job may touch."""

    def __init__(
        self,
        number: int,
        spec: dict[str, Any],
        *,
        confinement: Confinement,
        conceal: Callable[[bytes], bytes],
    ) -> None:
        """Start it. `conceal` takes out of its lines what is not to be shown. Raises OSError."""
        self.number = number
        self.last_words = ""
        self._node_id: str = spec["node_id"]
        self._conceal = conceal
        try:
            self._process = subprocess.Popen(
                spec["argv"],
                cwd=spec["cwd"],
                env=spec["env"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                # The runner has one thread, so code between fork and exec is safe.
                preexec_fn=confinement.enter,
            )
        except subprocess.SubprocessError:
            raise PermissionError(1, "it could not be confined") from None
        self.pipes = []
        for source, file in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            assert file is not None
            os.set_blocking(file.fileno(), False)
            self.pipes.append(Pipe(self, source, file, LineSplitter(clock=time.monotonic)))

    @property
    def group(self) -> int:
        """The process group that it leads."""
        return self._process.pid

    def ended(self) -> int | None:
        """Its exit status, or minus the number of the signal that ended it; None while it lives.

        Whatever it left running in its group ends with it.
        """
        if self._process.returncode is None and self._look(os.WNOHANG):
            # Until it is waited for, nobody else is given its number.
            self.kill()
            self._process.wait()
        return self._process.returncode

    def wait(self) -> None:
        """Wait for its end."""
        if self._process.returncode is None:
            self._look(0)
            self.ended()

    def _look(self, options: int) -> bool:
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | options)
        return ended is not None

    def ask_to_leave(self) -> None:
        """SIGTERM, unless it has ended."""
        if self.ended() is None:
            os.kill(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it started in its group, unless it has ended."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def entry(self, source: str, raw: bytes) -> LogEntry:
        """A line that it wrote."""
        stderr = source == "stderr"
        default = LogLevel.LOG_LEVEL_WARNING if stderr else LogLevel.LOG_LEVEL_INFO
        line = parse_line(self._conceal(raw), default=default)
        if stderr and line.message.strip():
            self.last_words = line.message.strip()[:_LAST_WORDS]
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
