"""A stream of Server-Sent Events that is taken up again whenever it breaks."""

import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Final

from scaimind.core.commands import Answer, Command, Emit, NewToken, Open, Pause, Receive, Request
from scaimind.core.retries import TRIES, Backoff, refusal
from scaimind.core.sse import Decoder, ServerEvent
from scaimind.errors import ConnectionFailed, ProtocolError, of_stream

#: Seconds without a byte after which a connection is broken: twice the keepalive interval.
SILENCE: Final = 30.0
#: Statuses after which the stream is asked for again.
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
_LONGEST_RETRY_MS: Final = 60_000


@dataclass(slots=True)
class Link:
    """Where a stream is. The stream changes all but `news`, which its reader sets."""

    #: The id to go on behind; empty before the first.
    last_id: str = ""
    #: Connections that began.
    connections: int = 0
    #: The gateway said that there is no more (204).
    complete: bool = False
    #: Something came that was never there before: a pause begins with the shortest again.
    news: bool = False


def connect(
    path: str,
    query: tuple[tuple[str, str], ...],
    link: Link,
    *,
    backoff: Backoff | None = None,
    silence: float = SILENCE,
) -> Generator[Command, Any, None]:
    """Emit a `ServerEvent` for each event, over as many connections as it takes.

    Ends with a 204 alone. Raises `ConnectionFailed` if the very first connection
    is not made, and `ApiError` for a refusal that lasts: 401 with a new token,
    403, 404, a request that is wrong, an `error` event that is not retryable; and
    for any that TRIES attempts met before a stream ever began. A stream that has
    begun is never given up.
    """
    backoff = backoff or Backoff()
    fresh = False
    attempts = 0
    while True:
        attempts += 1
        headers = [("Accept", "text/event-stream")]
        if link.last_id:
            headers.append(("Last-Event-ID", link.last_id))
        decoder = Decoder()
        pause_at_least = 0.0
        try:
            answer: Answer = yield Open(
                Request("GET", path, query, headers=tuple(headers), timeout=silence)
            )
            if answer.status == 204:
                link.complete = True
                return
            if answer.status == 200:
                if "text/event-stream" not in answer.headers.get("content-type", ""):
                    raise ProtocolError(
                        "The answer is not a stream: something in front of the gateway made it."
                    )
                link.connections += 1
                yield from _events(decoder, link)
                if link.news:
                    link.news = fresh = False
                    backoff.reset()
            elif answer.status == 401 and not fresh:
                fresh = True
                if (yield NewToken()):
                    continue
                raise refusal(answer)
            else:
                error = refusal(answer)
                never_began = not link.connections and attempts >= TRIES
                if answer.status not in _PASSING or never_began:
                    raise error
                pause_at_least = error.retry_after or 0.0
        except ConnectionFailed:
            if not link.connections:
                raise
            if link.news:
                link.news = fresh = False
                backoff.reset()
        if decoder.retry_ms is not None:
            pause_at_least = max(pause_at_least, min(decoder.retry_ms, _LONGEST_RETRY_MS) / 1000)
        yield Pause(backoff.after_failure(at_least=pause_at_least))


def _events(decoder: Decoder, link: Link) -> Generator[Command, Any, None]:
    """Emit the events of one connection; returns when another is to be made."""
    yield Emit(BEGINNING)
    while piece := (yield Receive()):
        for event in decoder.feed(piece):
            link.last_id = event.id or link.last_id
            if event.name != "error":
                yield Emit(event)
                continue
            error = data_of(event)
            code = str(error.get("code", ""))
            if not error.get("retryable") and code != "AUTH_EXPIRED":
                raise of_stream(code, str(error.get("error", "stream ended")))
            return


#: What is emitted when a connection has begun, before its events.
BEGINNING: Final = ServerEvent("", "", "")


def data_of(event: ServerEvent) -> dict[str, Any]:
    """Return an event's data. Raises `ProtocolError` if it is no JSON object."""
    try:
        value = json.loads(event.data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"An event {event.name!r} of the stream is no JSON.") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"An event {event.name!r} of the stream is no JSON object.")
    return value


class Enough(Exception):  # no error: it ends a stream
    """Raised by what takes events when it wants no more."""


def taken(
    steps: Generator[Command, Any, None], take: Callable[[Any], Iterable[Any]]
) -> Generator[Command, Any, None]:
    """Carry out a stream's commands, and emit what `take` makes of each event or item.

    Ends when `take` raises `Enough`, or with the stream.
    """
    told: Any = None
    problem: Exception | None = None
    while True:
        try:
            command = steps.send(told) if problem is None else steps.throw(problem)
        except StopIteration:
            return
        told, problem = None, None
        if isinstance(command, Emit):
            try:
                for item in take(command.item):
                    yield Emit(item)
            except Enough:
                steps.close()
                return
            continue
        try:
            told = yield command
        except Exception as error:
            # Whatever it is: those steps handle it, or let it pass.
            problem = error
