"""Takes a stream's socket over from the HTTP server."""

import asyncio
import os
import socket

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

#: What may wait in the kernel unsent (TCP_NOTSENT_LOWAT), so that a stalled
#: client costs no more than this there, whatever the kernel would allow.
KERNEL_UNSENT = 128 * 1024
#: How long a client may take to receive a stream's headers, in seconds.
HEADERS_TIMEOUT = 10.0


async def take_over(request: web.Request, writer: AbstractStreamWriter) -> int | None:
    """Take the socket of a request whose headers have been written; its descriptor.

    To the HTTP server, the client has gone from now on. The caller owns the
    descriptor. None if the client really has gone, or does not take the headers
    for `HEADERS_TIMEOUT` seconds. Raises `RuntimeError` on a
    TLS transport: bytes written to its socket would bypass the encryption.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        return None
    if transport.get_extra_info("ssl_object") is not None:
        raise RuntimeError(
            "streams cannot be served over TLS here: end TLS in front of the gateway"
        )
    # What is in the transport's buffer would be lost.
    transport.set_write_buffer_limits(high=0)
    try:
        async with asyncio.timeout(HEADERS_TIMEOUT):
            await writer.drain()
    except (ConnectionError, TimeoutError):
        transport.abort()
        return None
    if transport.is_closing():
        return None
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_UNSENT)
    fd = os.dup(sock.fileno())
    # This closes the server's descriptor; the connection has another one now.
    transport.abort()
    return fd
