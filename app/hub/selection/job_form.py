"""The events of a job's log and metrics within a stream over many jobs.

They are those of the single stream, with the job, its log's epoch and a gap's
place in their data in place of an id.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import orjson
from typing_extensions import override

from app.hub.core.forms import FormName, Sse
from app.hub.upstream import Position

#: What the data of a frame begins with.
_DATA: Final = b"\ndata: {"


class JobForm(Sse):
    """How one job's channel writes its events."""

    name = FormName.SSE
    shared = True

    def __init__(self, job_id: str) -> None:
        self._job = b'"job_id":%b' % orjson.dumps(job_id)

    @override
    def entries(self, log_frames: Sequence[bytes]) -> bytes:
        """Take the frames of the single stream, which are all of one epoch."""
        if not log_frames:
            return b""
        first = log_frames[0]
        head = b'event: log\ndata: {%b,"epoch":"%b",' % (self._job, first[4 : first.index(b":", 4)])
        parts: list[bytes] = []
        for frame in log_frames:
            parts.append(head)
            parts.append(frame[frame.index(_DATA) + len(_DATA) :])
        return b"".join(parts)

    def snapshot(self, position: Position, frame: bytes) -> bytes:
        """Take the frame of the single stream."""
        return b'event: metrics\ndata: {%b,"epoch":"%b",%b' % (
            self._job,
            position.epoch.encode(),
            frame[frame.index(_DATA) + len(_DATA) :],
        )

    @override
    def gap(
        self, *, start: Position, end: Position | None, reason: str, position: Position
    ) -> bytes:
        """Return a `gap` event; the stream goes on behind `position`."""
        told = {"from": str(start), "to": None if end is None else str(end), "reason": reason}
        return self._event(b"gap", position, told)

    def unknown_gap(self, *, reason: str, position: Position) -> bytes:
        """Return a `gap` event where nobody knows of what."""
        return self._event(b"gap", position, {"from": None, "to": None, "reason": reason})

    @override
    def end(self, position: Position, status: str) -> bytes:
        """Return an `end` event, which ends the job's log and not the stream."""
        return self._event(b"end", position, {"status": status})

    def _event(self, name: bytes, position: Position, data: dict[str, str | None]) -> bytes:
        rest = orjson.dumps({"epoch": position.epoch, "offset": position.offset, **data})
        return b"event: %b\ndata: {%b,%b\n\n" % (name, self._job, rest[1:])


@lru_cache(maxsize=16_384)
def job_form(job_id: str) -> JobForm:
    """Return the form of a job: one for all who follow it."""
    return JobForm(job_id)
