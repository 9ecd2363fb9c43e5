"""What all streams of events share: their headers, their sockets, where a client left off."""

from dataclasses import replace
from typing import Protocol

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse

from app.api.app_keys import caller_of
from app.api.endpoint import headers_of, query_of
from app.api.takeover import take_over
from app.caller import Caller
from app.errors import MALFORMED_REQUEST, ApiError
from app.hub.connection import Connection
from app.hub.upstream import Position


class Streaming(Protocol):
    """A watcher that has joined, and has no socket yet."""

    connection: Connection

    def start(self, fd: int) -> None:
        """Begin to write to the client's socket, which is the watcher's from now on."""


class EventStream(EventSourceResponse):
    """aiohttp-sse's response without its ping task: keepalives come from the hub.

    Its ping is a comment followed by a blank line, which some clients hand out
    as an empty message, and a task of its own for every watcher.
    """

    def __init__(self) -> None:
        super().__init__()
        # The connection ends with the stream.
        self.headers[hdrs.CONNECTION] = "close"
        # Compressed on the way (RFC 9111, 5.2.2.6), events would wait for each other.
        self.headers[hdrs.CACHE_CONTROL] = "no-cache, no-transform"
        self.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers."""
        return await super(EventSourceResponse, self).prepare(request)


async def hand_over(
    request: web.Request, watcher: Streaming | None, response: web.StreamResponse | None = None
) -> web.StreamResponse:
    """Send the headers, those of events unless given, then leave the socket to the watcher.

    To the HTTP server, the request is over.
    """
    if watcher is None:
        # An EventSource that gets this does not connect again (WHATWG HTML, 9.2.3).
        return web.Response(status=204)
    response = EventStream() if response is None else response
    if watcher.connection.gzip is not None:
        response.headers[hdrs.CONTENT_ENCODING] = "gzip"
    fd = None
    try:
        writer = await response.prepare(request)
        assert writer is not None
        fd = await take_over(request, writer)
    finally:
        if fd is None:
            watcher.connection.abandon()
    if fd is not None:
        watcher.start(fd)
    return response


def watching_caller(request: web.Request) -> Caller:
    """Return the caller without the token, which a long-lived stream does not need."""
    return replace(caller_of(request), subject_token="")


def in_chunks(request: web.Request) -> bool:
    """Whether the client takes HTTP/1.1 chunks."""
    return request.version >= HttpVersion11


def last_event_id(request: web.Request) -> str:
    """Read where the client left off: the header that EventSource sends, or the query; or "".

    The header comes first: EventSource repeats the query of its first
    connection, with an id that is out of date by then.
    """
    query = query_of(request)
    queried = {query["last_event_id"], query["last_event_id_of_polyfill"]} - {""}
    if len(queried) > 1:
        raise ApiError(
            MALFORMED_REQUEST, "last_event_id and lastEventId are different. Send one of them."
        )
    return headers_of(request)["last_event_id"] or "".join(queried)


def last_position(request: web.Request) -> Position | None:
    """Read where the client left off in a job's log or metrics; None if it says nothing of it."""
    text = last_event_id(request)
    if not text:
        return None
    try:
        return Position.parse(text)
    except ValueError as error:
        raise not_an_id(error) from None


def not_an_id(error: ValueError) -> ApiError:
    """Return the error of a client that sends something else than an event's id."""
    return ApiError(
        MALFORMED_REQUEST,
        f"Last-Event-ID is {error}. Send the id of the last event as it was received.",
    )
