r"""Server-Sent Events as bytes (WHATWG HTML, section 9.2), and HTTP/1.1 chunks around them.

Data arrives as one line of JSON, in which a line break within a text is
escaped: no text can break a frame. Every event carries its id, so that no
client loses its place, and there is no block without data, which some clients
would hand out as an empty message.
"""

import json
from collections.abc import Mapping

from app.errors import ErrorKind
from app.hub.upstream import Position

#: One line break only: a blank line would dispatch an event in some clients.
KEEPALIVE = b": keepalive\n"

#: The end of a body in chunks.
LAST_CHUNK = b"0\r\n\r\n"


def log_prefix(epoch: str) -> bytes:
    """Return what precedes the offset in every log frame of an epoch."""
    return f"id: {epoch}:".encode()


def log_frame(prefix: bytes, offset: int, data: bytes) -> bytes:
    """Frame one log entry."""
    return b"%b%d\nevent: log\ndata: %b\n\n" % (prefix, offset, data)


def data_of(log_frame: bytes) -> bytes:
    """Return the entry that a log frame carries: one line of JSON."""
    return log_frame[log_frame.index(b"\ndata: ") + 7 : -2]


def metrics_frame(position: Position, data: bytes) -> bytes:
    """Frame one metrics snapshot."""
    return b"id: %b\nevent: metrics\ndata: %b\n\n" % (str(position).encode(), data)


def bookmark(position: Position, *, retry_ms: int | None = None) -> bytes:
    """Return the event with the client's position, and optionally its reconnection delay."""
    retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    return b"%bid: %b\nevent: bookmark\ndata: {}\n\n" % (retry, str(position).encode())


def gap(*, start: Position, end: Position | None, reason: str, position: Position) -> bytes:
    """Return the event for entries from `start` to `end` (None: unknown) that are not delivered.

    `position` is where the stream goes on behind.
    """
    data = {"from": str(start), "to": None if end is None else str(end), "reason": reason}
    return _event(b"gap", data, position)


def match(position: Position, data: bytes) -> bytes:
    """Frame what a search has found: its JSON, one line."""
    return b"id: %b\nevent: match\ndata: %b\n\n" % (str(position).encode(), data)


def event(
    name: str, data: Mapping[str, object], position: Position, *, retry_ms: int | None = None
) -> bytes:
    """Frame any other event, with the place where to go on."""
    return _event(name.encode(), data, position, retry_ms)


def end(position: Position, status: str) -> bytes:
    """Return the last event of a complete stream: the position reached and the job's status."""
    return _event(b"end", {"status": status, "last_id": str(position)}, position)


def error(
    kind: ErrorKind, *, retryable: bool, position: Position, retry_ms: int | None = None
) -> bytes:
    """Return the last event of a broken stream, and optionally a reconnection delay."""
    data = {"error": "stream ended", "code": kind.code, "retryable": retryable}
    return _event(b"error", data, position, retry_ms)


def chunk(payload: bytes) -> bytes:
    """Frame a payload as one HTTP/1.1 chunk (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _event(
    name: bytes, data: Mapping[str, object], position: Position, retry_ms: int | None = None
) -> bytes:
    retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    text = json.dumps(data, separators=(",", ":")).encode()
    return b"%bid: %b\nevent: %b\ndata: %b\n\n" % (retry, str(position).encode(), name, text)
