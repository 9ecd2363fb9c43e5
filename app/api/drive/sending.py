"""Sends a file: the drive writes to the socket itself, as fast as the client takes it."""

import asyncio
import socket

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from app.api.app_keys import SERVER_SETTINGS
from app.api.delivery import ClientLeft
from app.drive.drive import FoundFile
from app.errors import ApiError

log = structlog.get_logger()


async def send_file(
    request: web.Request,
    response: web.StreamResponse,
    found: FoundFile,
    part: range,
) -> None:
    """Send the headers and that part of the file, which the caller has announced.

    No thread is held while the client is waited for: it has to take `min_rate`
    bytes a second, and something within `answer_timeout`. If it does not, the
    file has become another one or the drive hangs, the connection ends before
    the announced length. Takes the file over. Raises `ClientLeft`.
    """
    sock: socket.socket | None = None
    try:
        writer = await response.prepare(request)
        assert writer is not None
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ClientLeft("the client has gone")
        if transport.get_extra_info("ssl_object") is not None:
            raise RuntimeError(
                "files cannot be sent over TLS here: end TLS in front of the gateway"
            )
        # A descriptor of its own: the event loop lets nobody else use a transport's.
        sock = transport.get_extra_info("socket").dup()
        await _send(request, transport, writer, sock, found, part)
        transport.set_write_buffer_limits()
    except BaseException as error:
        if request.transport is not None:
            request.transport.abort()
        if isinstance(error, ApiError | OSError | TimeoutError):
            log.info("file_not_sent", reason=str(error), remote=request.remote)
            raise ClientLeft("the file was not sent to its end") from None
        raise
    finally:
        found.end(sock.close if sock is not None else lambda: None)


async def _send(
    request: web.Request,
    transport: asyncio.Transport,
    writer: AbstractStreamWriter,
    sock: socket.socket,
    found: FoundFile,
    part: range,
) -> None:
    limits = request.app[SERVER_SETTINGS]
    loop = asyncio.get_running_loop()
    #: Seconds that the client may still keep us waiting: bytes that it takes earn some, but never
    #: more than it had at the start.
    left = limits.answer_timeout
    transport.set_write_buffer_limits(high=0)
    async with asyncio.timeout(left):
        await writer.drain()
    offset = part.start
    while offset < part.stop and not transport.is_closing():
        sent = await found.send(sock.fileno(), range(offset, part.stop))
        if sent is None:
            began = loop.time()
            async with asyncio.timeout(left):
                await _writable(sock.fileno())
            left -= loop.time() - began
        elif not sent:
            raise EOFError("the file became shorter while it was sent")
        else:
            offset += sent
            left = min(limits.answer_timeout, left + sent / limits.min_rate)
    if offset < part.stop:
        raise ConnectionResetError("the client has gone")


async def _writable(descriptor: int) -> None:
    """Wait until the socket takes something, or has failed."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)
