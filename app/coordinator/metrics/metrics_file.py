"""The file that training processes append their numbers to, read while it grows."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.coordinator.metrics.line import MAX_LINE, BadLine, Fault, parse_snapshot
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot

_READ: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Look:
    """How much is read at once, at most, to a mebibyte."""

    size: int
    lines: int


#: While a run goes on: a look must not hold up its signals.
LOOK: Final = Look(16 * _READ, 50_000)
#: When it is over: of what no look has read yet.
LAST_LOOK: Final = Look(1024 * _READ, 1_000_000)


class MetricsFile:
    """One run's SCAIMIND_METRICS_FILE.

    It is the training process's own, which may have put anything there and
    anything into it. Nothing is raised for that: a line that is no snapshot,
    and a part of one that cannot be kept, is left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._rest = b""
        # The line that `_rest` begins with was too long; it ends with the next break.
        self._skipping = False
        self._said: set[object] = set()
        self._problems: list[str] = []

    def take_problems(self) -> list[str]:
        """What has been left out since the last call, in sentences, each kind once in a run."""
        problems, self._problems = self._problems, []
        return problems

    def batches(
        self, *, last: bool = False, most: Look | None = None
    ) -> Iterator[list[MetricsSnapshot]]:
        """The snapshots since the last call, within `most`: LOOK or LAST_LOOK.

        With `last`, the end needs no line break, and what is behind `most` is left out.
        They have no time and no number yet. A batch is what a mebibyte holds.
        """
        most = most or (LAST_LOOK if last else LOOK)
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            self._say("file", f"The metrics file cannot be read: {error.strerror}.")
            return
        try:
            yield from self._read(file, most, last=last)
        except OSError as error:
            self._say("file", f"The metrics file cannot be read: {error.strerror}.")
        finally:
            os.close(file)
        if last:
            lines = [] if self._skipping else [self._rest]
            self._rest = b""
            yield self._parse(lines)

    def _read(self, file: int, most: Look, *, last: bool) -> Iterator[list[MetricsSnapshot]]:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            self._say("file", "The metrics file cannot be read: it is not a regular file.")
            return
        end = min(found.st_size, self._at + most.size)
        count = 0
        # It may have become shorter.
        while count < most.lines and (
            data := os.pread(file, max(min(_READ, end - self._at), 0), self._at)
        ):
            self._at += len(data)
            lines = self._lines(data)
            count += len(lines)
            yield self._parse(lines)
        if last and self._at < found.st_size:
            self._say("rest", f"The metrics file is not read behind its byte {self._at}.")

    def _lines(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes; of one that is too long, nothing but the fact."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._skipping and lines:
            del lines[0]
            self._skipping = False
        if self._skipping or len(self._rest) > MAX_LINE:
            self._left_out(Fault.TOO_LONG)
            self._rest = b""
            self._skipping = True
        return lines

    def _parse(self, lines: list[bytes]) -> list[MetricsSnapshot]:
        snapshots = []
        for raw in lines:
            if not raw.strip():
                continue
            try:
                snapshot, faults = parse_snapshot(raw)
            except BadLine as error:
                self._left_out(error.fault)
                continue
            snapshots.append(snapshot)
            for fault in faults:
                self._say(fault, f"Part of a line of the metrics file is left out: {fault.value}.")
        return snapshots

    def _left_out(self, fault: Fault) -> None:
        self._say(fault, f"A line of the metrics file is left out: {fault.value}.")

    def _say(self, kind: object, sentence: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._problems.append(sentence)
