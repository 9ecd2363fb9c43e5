"""Sends answers, and decides what becomes of the connection that a request leaves behind.

A request may be answered before its body has arrived: it was refused, or
nobody wanted the body. A little of it is read away, since a connection that
is closed with unread bytes is reset, and the answer may be lost with it.
"""

import asyncio
from contextlib import suppress

import structlog
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.typedefs import Handler

from app.api.app_keys import ANSWER_HEADERS, REQUEST_ID, SERVER_SETTINGS
from app.api.envelope import JsonAnswer, NotModified
from app.api.expectations import awaits_continue

log = structlog.get_logger()

#: How much of an unwanted body is read, in bytes, and for how long, in seconds.
LINGER_BYTES = 64 * 1024
LINGER_SECONDS = 1.0
#: Bytes of an answer that, with its head, fit into a transport's empty buffer (64 KiB).
SMALL = 32 * 1024


class ClientLeft(ConnectionResetError):
    """The client has gone, or takes nothing: nobody is left to be answered."""


@web.middleware
async def deliver(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Send the answer; a stream, which has begun, is passed on as it is.

    The client has to take it within `answer_timeout` seconds and one more for
    each `min_rate` bytes of it.
    """
    response = await handler(request)
    if response.prepared:
        return response
    body = request.content
    if not body.is_eof() and (response.status == 408 or not _soon_read(request)):
        response.force_close()
    limits = request.app[SERVER_SETTINGS]
    size = response.content_length or 0
    try:
        if _fits(request, response, size):
            if not _written_whole(request, response):
                await response.prepare(request)
                await response.write_eof()
        else:
            async with asyncio.timeout(limits.answer_timeout + size / limits.min_rate):
                writer = await response.prepare(request)
                await response.write_eof()
                if writer is not None and not response.keep_alive:
                    await _taken(request, writer)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        log.info("answer_not_taken", remote=request.remote)
        raise ClientLeft("the client does not take its answer") from None
    if not body.is_eof():
        if not response.keep_alive and request.transport is not None:
            # The end of the answer, even for a client that goes on sending and is reset.
            request.transport.write_eof()
        # A body that breaks off, or breaks its framing, is as unwanted as any other.
        with suppress(TimeoutError, ConnectionError, web.RequestPayloadError):
            async with asyncio.timeout(LINGER_SECONDS):
                await _read_away(request)
    return response


def _fits(request: web.Request, response: web.StreamResponse, size: int) -> bool:
    """Return whether an answer is written without waiting for the client: as nearly all.

    Then it needs no time limit, and the connection stays for the next request, or its next
    answer waits.
    """
    transport = request.transport
    return (
        transport is not None
        and request.keep_alive
        and response.keep_alive is not False
        and isinstance(response, web.Response)
        and type(response) in (JsonAnswer, NotModified, web.Response)
        and type(response.body) in (bytes, type(None))
        and size <= SMALL
        and not transport.get_write_buffer_size()
    )


def _written_whole(request: web.Request, response: web.StreamResponse) -> bool:
    """Write an answer that fits with its head in one piece, as most can be.

    False if aiohttp has to. It has no hook for that: `tests/gateway/test_internals.py` says
    which of its attributes are set.
    """
    transport = request.transport
    if not isinstance(response, JsonAnswer | NotModified):
        return False
    body = b"" if isinstance(response, NotModified) else response.body
    if (
        type(body) is not bytes
        or request.version != HttpVersion11
        or request.method == hdrs.METH_HEAD
        or transport is None
        or transport.is_closing()
    ):
        return False
    head = request.app[ANSWER_HEADERS].head(
        response.status,
        response.reason,
        response.headers,
        length=None if isinstance(response, NotModified) else len(body),
        asked=request.headers,
        request_id=request[REQUEST_ID],
    )
    if head is None:
        return False
    answer = head + body
    transport.write(answer)
    request.writer.output_size += len(answer)
    response._keep_alive = True
    response._eof_sent = True
    return True


def _soon_read(request: web.Request) -> bool:
    """Return whether so little of the body is left that the connection can be used again."""
    length = request.content_length
    return length is not None and length <= LINGER_BYTES and not awaits_continue(request)


async def _taken(request: web.Request, writer: AbstractStreamWriter) -> None:
    """Wait until nothing of an answer waits here: what does when a connection is closed has
    little time.
    """
    transport = request.transport
    if transport is not None and transport.get_write_buffer_size():
        transport.set_write_buffer_limits(high=0)
        await writer.drain()


async def _read_away(request: web.Request) -> None:
    read = 0
    while read < LINGER_BYTES:
        data = await request.content.readany()
        if not data:
            return
        read += len(data)
    # Nothing more is read. Until the connection is closed, the client can find its answer.
    await asyncio.Event().wait()
