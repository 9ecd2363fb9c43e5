"""The forms in which a log is sent: its events as SSE, as NDJSON, or its lines as text.

A form takes entries as SSE frames, since the history keeps those. What it makes
of an event may be empty: then nothing is sent.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

import orjson

from app.errors import ErrorKind
from app.hub.core import frames
from app.hub.upstream import Position


class FormName(StrEnum):
    """What the forms are called."""

    SSE = "sse"
    TEXT = "text"
    NDJSON = "ndjson"


class Form(Protocol):
    """How the events of one watcher's log are written.

    `shared` tells whether it is the same for all watchers, so that a cohort
    can be sent the same bytes. One that is not remembers what it wrote.
    """

    name: FormName
    shared: bool

    def opening(self, position: Position, *, retry_ms: int) -> bytes:
        """Return what the stream begins with."""

    def entries(self, log_frames: Sequence[bytes]) -> bytes:
        """Return entries, given as SSE frames."""

    def gap(
        self, *, start: Position, end: Position | None, reason: str, position: Position
    ) -> bytes:
        """Return what stands for entries that are not delivered; as `frames.gap`."""

    def bookmark(self, position: Position) -> bytes:
        """Return the client's position."""

    def keepalive(self, position: Position) -> bytes:
        """Return what keeps a quiet stream from being taken for a dead one."""

    def end(self, position: Position, status: str) -> bytes:
        """Return what a complete stream ends with."""

    def error(
        self, kind: ErrorKind, *, retryable: bool, position: Position, retry_ms: int | None
    ) -> bytes:
        """Return what a stream ends with that has broken off."""


class Sse(Form):
    """Server-Sent Events."""

    name = FormName.SSE
    shared = True

    def opening(self, position: Position, *, retry_ms: int) -> bytes:
        """Return a bookmark with the client's reconnection delay."""
        return frames.bookmark(position, retry_ms=retry_ms)

    def entries(self, log_frames: Sequence[bytes]) -> bytes:
        """Join the frames."""
        return b"".join(log_frames)

    def gap(
        self, *, start: Position, end: Position | None, reason: str, position: Position
    ) -> bytes:
        """Return a `gap` event."""
        return frames.gap(start=start, end=end, reason=reason, position=position)

    def bookmark(self, position: Position) -> bytes:
        """Return a `bookmark` event."""
        return frames.bookmark(position)

    def keepalive(self, position: Position) -> bytes:
        """Return a comment."""
        return frames.KEEPALIVE

    def end(self, position: Position, status: str) -> bytes:
        """Return an `end` event."""
        return frames.end(position, status)

    def error(
        self, kind: ErrorKind, *, retryable: bool, position: Position, retry_ms: int | None
    ) -> bytes:
        """Return an `error` event."""
        return frames.error(kind, retryable=retryable, position=position, retry_ms=retry_ms)


class Ndjson(Form):
    """A JSON object a line, each with its `id`; what is no entry has an `event`."""

    name = FormName.NDJSON
    shared = True

    def opening(self, position: Position, *, retry_ms: int) -> bytes:
        """Return nothing: the first entry has its own id."""
        return b""

    def entries(self, log_frames: Sequence[bytes]) -> bytes:
        """Return the entries, with their ids in front."""
        lines = []
        for frame in log_frames:
            # An entry is no empty object, and nothing in an id needs to be escaped.
            id_end, data = frame.index(b"\n"), frame.index(b"\ndata: ") + 8
            lines.append(b'{"id":"%b",%b\n' % (frame[4:id_end], frame[data:-2]))
        return b"".join(lines)

    def gap(
        self, *, start: Position, end: Position | None, reason: str, position: Position
    ) -> bytes:
        """Return a line with the event `gap`."""
        told = {"from": str(start), "to": None if end is None else str(end), "reason": reason}
        return self._line("gap", position, told)

    def bookmark(self, position: Position) -> bytes:
        """Return a line with the event `bookmark`."""
        return self._line("bookmark", position, {})

    def keepalive(self, position: Position) -> bytes:
        """Return a bookmark: an empty line is an error to many readers."""
        return self.bookmark(position)

    def end(self, position: Position, status: str) -> bytes:
        """Return a line with the event `end`."""
        return self._line("end", position, {"status": status, "last_id": str(position)})

    def error(
        self, kind: ErrorKind, *, retryable: bool, position: Position, retry_ms: int | None
    ) -> bytes:
        """Return a line with the event `error`."""
        told = {"error": "stream ended", "code": kind.code, "retryable": retryable}
        return self._line("error", position, told)

    @staticmethod
    def _line(event: str, position: Position, data: dict[str, Any]) -> bytes:
        return orjson.dumps({"id": str(position), "event": event, **data}) + b"\n"


class Text(Form):
    """The lines as the process printed them, and nothing else.

    A line that came in pieces is written when it is whole: with its last
    piece, or before the next line of the same process and output. Other lines
    may have come in between.
    """

    name = FormName.TEXT
    shared = False

    #: Characters of lines that are not whole; beyond, the oldest is written as it is.
    MOST_OPEN: Final = 1024 * 1024
    #: As how many characters a piece counts besides its own.
    PIECE: Final = 64

    def __init__(self) -> None:
        #: By source and rank: the offset of the first piece, and the pieces.
        self._open: dict[tuple[str, int], tuple[int, list[str]]] = {}
        self._open_size = 0

    def opening(self, position: Position, *, retry_ms: int) -> bytes:
        """Return nothing."""
        return b""

    def entries(self, log_frames: Sequence[bytes]) -> bytes:
        """Return the messages, each on its line."""
        parts: list[str] = []
        for frame in log_frames:
            entry = orjson.loads(frames.data_of(frame))
            message, fields = entry["message"], entry.get("fields", {})
            if self._open or "partial" in fields:
                self._piece(parts, entry, message, fields)
            else:
                parts += (message, "\n")
        return "".join(parts).encode()

    def _piece(
        self, parts: list[str], entry: dict[str, Any], message: str, fields: dict[str, str]
    ) -> None:
        """Take an entry that may be a piece, or may come after one."""
        writer = entry.get("source", ""), entry.get("rank", 0)
        first = _offset(fields.get("continues"))
        if writer in self._open and self._open[writer][0] != first:
            parts.append(self._close(writer))
        if "partial" not in fields:
            if writer in self._open:
                message = self._close(writer)[:-1] + message
            parts += (message, "\n")
            return
        self._open.setdefault(writer, (first or entry["offset"], []))[1].append(message)
        self._open_size += len(message) + self.PIECE
        while self._open_size > self.MOST_OPEN:
            parts.append(self._close(next(iter(self._open))))

    def _close(self, writer: tuple[str, int]) -> str:
        _, pieces = self._open.pop(writer)
        line = "".join(pieces)
        self._open_size -= len(line) + self.PIECE * len(pieces)
        return line + "\n"

    def gap(
        self, *, start: Position, end: Position | None, reason: str, position: Position
    ) -> bytes:
        """Return a line in square brackets."""
        if end is None:
            missing = f"lines from {start.offset} on are missing"
        elif end.offset == start.offset:
            missing = f"line {start.offset} is missing"
        else:
            missing = f"lines {start.offset} to {end.offset} are missing"
        return self._closed() + f"[scaimind: {missing}: {reason}]\n".encode()

    def bookmark(self, position: Position) -> bytes:
        """Return nothing."""
        return b""

    def keepalive(self, position: Position) -> bytes:
        """Return nothing: there is no line that says nothing."""
        return b""

    def end(self, position: Position, status: str) -> bytes:
        """Return the lines that are not whole."""
        return self._closed()

    def error(
        self, kind: ErrorKind, *, retryable: bool, position: Position, retry_ms: int | None
    ) -> bytes:
        """Return nothing: that the body is incomplete says it."""
        return b""

    def _closed(self) -> bytes:
        """Return the lines that were not whole, as they are."""
        return "".join(self._close(writer) for writer in list(self._open)).encode()


SSE: Final = Sse()
NDJSON: Final = Ndjson()


def form_of(name: FormName) -> Form:
    """Return the form of that name, for one watcher."""
    if name is FormName.TEXT:
        return Text()
    return NDJSON if name is FormName.NDJSON else SSE


def _offset(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) <= 18 else 0
