"""A job's log, followed through everything: each line once, and what is missing told.

The follower is a generator of commands (`scaimind.core.commands`). It ends only
when the job has ended and all of its log was delivered; it raises what a new
attempt would not change; everything else it survives.
"""

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

from scaimind.core.commands import Answer, Command, Emit, NewToken, Open, Pause, Receive, Request
from scaimind.core.cursor import Cursor
from scaimind.core.retries import TRIES, Backoff, call, refusal
from scaimind.core.sse import Decoder, ServerEvent
from scaimind.errors import ConnectionFailed, ProtocolError, of_stream

#: Seconds without a byte after which a connection is broken: twice the keepalive interval.
SILENCE: Final = 60.0
#: Statuses after which the stream is asked for again.
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
_ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "PREEMPTED"})


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry of a job's log. `extra` has fields of a newer gateway."""

    offset: int
    level: str
    message: str
    timestamp: str | None
    source: str
    rank: int
    node_id: str
    fields: dict[str, str]
    epoch: str
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def cursor(self) -> Cursor:
        """Where to go on behind this line."""
        return Cursor(self.epoch, self.offset)


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries that will not come. `to` is None where nobody knows; both ends are included."""

    first: int
    to: int | None
    reason: str


@dataclass(slots=True)
class Following:
    """Where a follower is; changed by the follower alone."""

    cursor: Cursor | None = None
    #: The job's final status, once it has ended.
    status: str = ""
    #: Connections that began.
    connections: int = 0


def follow_logs(
    job_id: str,
    query: tuple[tuple[str, str], ...],
    following: Following,
    *,
    path: str,
    backoff: Backoff | None = None,
    silence: float = SILENCE,
) -> Generator[Command, Any, None]:
    """Emit `LogLine` and `Gap` until the log is complete, or with `follow=false` told.

    `following.cursor` is where to begin; without one, `query` has the `tail`.
    Raises `ConnectionFailed` if the very first connection is not made, and
    `ApiError` for a refusal that lasts: 401 with a new token, 403, 404, a
    request that is wrong, a deleted job; and for any that TRIES attempts met
    before a stream ever began. A stream that has begun is never given up.
    """
    backoff = backoff or Backoff()
    #: The last entry that was delivered, which a repetition would double.
    newest = following.cursor
    fresh = False
    attempts = 0
    while True:
        attempts += 1
        headers = [("Accept", "text/event-stream")]
        if following.cursor is not None:
            headers.append(("Last-Event-ID", str(following.cursor)))
        decoder = Decoder()
        pause_at_least = 0.0
        try:
            answer: Answer = yield Open(
                Request("GET", path, query, headers=tuple(headers), timeout=silence)
            )
            if answer.status == 204:
                following.status = yield from _final_status(job_id)
                return
            if answer.status == 200:
                if "text/event-stream" not in answer.headers.get("content-type", ""):
                    raise ProtocolError(
                        "The answer is not a stream: something in front of the gateway made it."
                    )
                following.connections += 1
                while piece := (yield Receive()):
                    for event in decoder.feed(piece):
                        if event.id:
                            following.cursor = Cursor.parse(event.id)
                        if event.name == "log":
                            line = _line(event, following.cursor)
                            if newest is None or not _behind(line, newest):
                                newest = line.cursor
                                backoff.reset()
                                fresh = False
                                yield Emit(line)
                        elif event.name == "gap":
                            yield Emit(_gap(event))
                        elif event.name == "end":
                            following.status = str(_json(event).get("status", ""))
                            return
                        elif event.name == "error":
                            error = _json(event)
                            code = str(error.get("code", ""))
                            if code == "AUTH_EXPIRED":
                                break
                            if not error.get("retryable"):
                                raise of_stream(code, str(error.get("error", "stream ended")))
                            break
            elif answer.status == 401 and not fresh:
                fresh = True
                if (yield NewToken()):
                    continue
                raise refusal(answer)
            else:
                error_of = refusal(answer)
                never_began = not following.connections and attempts >= TRIES
                if answer.status not in _PASSING or never_began:
                    raise error_of
                pause_at_least = error_of.retry_after or 0.0
        except ConnectionFailed:
            if not following.connections:
                raise
        if decoder.retry_ms is not None:
            pause_at_least = max(pause_at_least, min(decoder.retry_ms, 60_000) / 1000)
        yield Pause(backoff.after_failure(at_least=pause_at_least))


def _final_status(job_id: str) -> Generator[Command, Any, str]:
    answer = yield from call(Request("GET", f"/jobs/{job_id}"))
    job = answer.get("data") if isinstance(answer, dict) else None
    return str(job.get("status", "")) if isinstance(job, dict) else ""


def _behind(line: LogLine, newest: Cursor) -> bool:
    """Whether the line was delivered before."""
    return line.epoch == newest.epoch and line.offset <= newest.offset


def _json(event: ServerEvent) -> dict[str, Any]:
    try:
        value = json.loads(event.data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"An event {event.name!r} of the stream is no JSON.") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"An event {event.name!r} of the stream is no JSON object.")
    return value


def _line(event: ServerEvent, cursor: Cursor | None) -> LogLine:
    value = _json(event)
    try:
        return LogLine(
            offset=int(value.pop("offset")),
            level=str(value.pop("level")),
            message=str(value.pop("message")),
            timestamp=value.pop("timestamp", None),
            source=str(value.pop("source", "")),
            rank=int(value.pop("rank", 0)),
            node_id=str(value.pop("node_id", "")),
            fields=dict(value.pop("fields", None) or {}),
            epoch=cursor.epoch if cursor is not None else "",
            extra=value,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError("An entry of the log lacks a field.") from error


def _gap(event: ServerEvent) -> Gap:
    value = _json(event)
    to = value.get("to")
    return Gap(
        first=int(value.get("from") or 0),
        to=int(to) if to is not None else None,
        reason=str(value.get("reason", "")),
    )


def ended(status: str) -> bool:
    """Whether a job in this state has ended."""
    return status in _ENDED
