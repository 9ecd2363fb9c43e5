"""Sends a file: from the disk to the socket by the kernel, in threads of the drive."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from app.api.app_keys import SERVER_SETTINGS
from app.api.delivery import ClientLeft
from app.drive.disk_threads import Strand
from app.drive.tree import OpenFile
from app.errors import ApiError

log = structlog.get_logger()

#: Most bytes that a thread sends before others have their turn.
_PIECE: Final = 8 * 1024 * 1024


async def send_file(
    request: web.Request,
    response: web.StreamResponse,
    opened: OpenFile,
    part: range,
    strand: Strand,
) -> None:
    """Send the headers and that part of the file, which the caller has announced.

    A thread is held while the disk is read, never while the client is waited
    for: it has to take `min_rate` bytes a second, and something within
    `answer_timeout`. If it does not, the file has become shorter or the disk
    hangs, the connection ends before the announced length. Takes the file over.
    Raises `ClientLeft`.
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
        await _send(request, transport, writer, sock, opened, part, strand)
        transport.set_write_buffer_limits()
    except BaseException as error:
        if request.transport is not None:
            request.transport.abort()
        if isinstance(error, ApiError | OSError | TimeoutError):
            log.info("file_not_sent", reason=str(error), remote=request.remote)
            raise ClientLeft("the file was not sent to its end") from None
        raise
    finally:
        strand.end(partial(_close, opened, sock))


async def _send(
    request: web.Request,
    transport: asyncio.Transport,
    writer: AbstractStreamWriter,
    sock: socket.socket,
    opened: OpenFile,
    part: range,
    strand: Strand,
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
        sent = await strand.run(
            partial(_sendfile, sock.fileno(), opened.descriptor, offset, part.stop - offset)
        )
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


def _sendfile(sock: int, file: int, offset: int, count: int) -> int | None:
    """Send what the socket takes; None if it takes nothing at the moment. In a thread."""
    try:
        return os.sendfile(sock, file, offset, min(count, _PIECE))
    except BlockingIOError:
        return None


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


def _close(opened: OpenFile, sock: socket.socket | None) -> None:
    closing: list[Callable[[], None]] = [opened.close]
    if sock is not None:
        closing.append(sock.close)
    for close in closing:
        with suppress(OSError):
            close()
