"""The file that training processes append their numbers to, read while it grows."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot

from .metrics import BadMetrics, parse_snapshot

_READ: Final = 1024 * 1024
_MAX_LINE: Final = 1024 * 1024


class MetricsFile:
    """One run's SCAIMIND_METRICS_FILE."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._rest = b""
        #: Why the first line that is no snapshot is none; empty while there is no such line.
        self.problem = ""

    def batches(self, *, last: bool = False) -> Iterator[list[MetricsSnapshot]]:
        """The snapshots since the last call; with `last`, the end needs no line break.

        They have no time and no number yet. A batch is what a mebibyte holds.
        Raises OSError.
        """
        try:
            # It is the training process's own: it may have put anything there.
            file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            while data := os.pread(file, _READ, self._at):
                self._at += len(data)
                *lines, self._rest = (self._rest + data).split(b"\n")
                if len(self._rest) > _MAX_LINE:
                    lines.append(b"<too long>")
                    self._rest = b""
                yield self._parse(lines)
        finally:
            os.close(file)
        if last:
            yield self._parse([self._rest])

    def _parse(self, lines: list[bytes]) -> list[MetricsSnapshot]:
        snapshots = []
        for raw in lines:
            if not raw.strip():
                continue
            try:
                snapshots.append(parse_snapshot(raw))
            except BadMetrics as error:
                self.problem = self.problem or str(error)
        return snapshots
