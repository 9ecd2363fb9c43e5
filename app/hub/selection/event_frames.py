"""The events of a stream over many jobs, as bytes; those of a job's log are in `job_form`.

Only a bookmark has an id: the whole stream's place.
"""

import json
from collections.abc import Mapping

from app.errors import ErrorKind


def job(data: bytes) -> bytes:
    """Frame a job's state: its JSON, one line."""
    return b"event: job\ndata: %b\n\n" % data


def job_gone(job_id: str, reason: str) -> bytes:
    """Return the event for a job that the stream is no longer about."""
    return _event("job_gone", {"job_id": job_id, "reason": reason})


def synced(jobs: int) -> bytes:
    """Return the event behind the states, or behind what has changed of them."""
    return _event("synced", {"jobs": jobs})


def reset(reason: str) -> bytes:
    """Return the event before a whole state that replaces what the client has."""
    return _event("reset", {"reason": reason})


def limit(*, matching: int, states: int, followed: int) -> bytes:
    """Return the event of a selection that has grown over what is told of, or followed."""
    return _event("limit", {"matching": matching, "states": states, "followed": followed})


def node(data: bytes) -> bytes:
    """Frame a node: its JSON, one line."""
    return b"event: node\ndata: %b\n\n" % data


def queue(data: bytes) -> bytes:
    """Frame the queue: its JSON, one line."""
    return b"event: queue\ndata: %b\n\n" % data


def bookmark(cursor: str) -> bytes:
    """Return the event that carries the stream's place."""
    return b"id: %b\nevent: bookmark\ndata: {}\n\n" % cursor.encode()


def error(kind: ErrorKind, *, retryable: bool, retry_ms: int | None = None) -> bytes:
    """Return the last event of a stream that breaks off, and optionally a reconnection delay."""
    retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    data = {"error": "stream ended", "code": kind.code, "retryable": retryable}
    return retry + _event("error", data)


def _event(name: str, data: Mapping[str, object]) -> bytes:
    text = json.dumps(data, separators=(",", ":")).encode()
    return b"event: %b\ndata: %b\n\n" % (name.encode(), text)
