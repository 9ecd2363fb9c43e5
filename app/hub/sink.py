"""The socket of one watcher."""

import fcntl
import socket
import struct
import termios
from typing import Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter


class Sink(Protocol):
    """Where a watcher's bytes go, in order."""

    @property
    def closing(self) -> bool:
        """Whether the client has gone."""

    def send(self, data: bytes) -> bool:
        """Take all of `data`; True if the kernel has it, False if some of it waits here."""

    @property
    def unsent(self) -> int:
        """Bytes that wait here since the kernel does not take them."""

    @property
    def outstanding(self) -> int:
        """Bytes that the client has not acknowledged, those that wait here included."""

    async def drained(self) -> None:
        """Wait until nothing waits here any more, or the client has gone."""

    def abort(self) -> None:
        """Close at once, and give up what waits."""


class TransportSink:
    """A sink over the transport of a response that has been prepared.

    It writes beside the response's own writer, which may be used again only
    when nothing waits here. Chunk framing is the caller's.
    """

    __slots__ = ("_fd", "_transport", "_writer")

    #: What may wait in the kernel unsent (Linux's TCP_NOTSENT_LOWAT), so that a
    #: stalled client costs no more than this there, whatever the kernel would allow.
    KERNEL_UNSENT = 128 * 1024

    def __init__(self, request: web.Request, writer: AbstractStreamWriter) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        self._transport = transport
        self._writer = writer
        # Flow control at the first byte that the kernel does not take: a write
        # is tried at once, and `drained` waits for all of it.
        transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        self._fd = sock.fileno()
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self.KERNEL_UNSENT)

    @property
    def closing(self) -> bool:
        """See `Sink`."""
        return self._transport.is_closing()

    def send(self, data: bytes) -> bool:
        """See `Sink`. To a client that has gone, nothing is sent, and it is False."""
        transport = self._transport
        if transport.is_closing():
            return False
        transport.write(data)
        return transport.get_write_buffer_size() == 0

    @property
    def unsent(self) -> int:
        """See `Sink`."""
        return self._transport.get_write_buffer_size()

    @property
    def outstanding(self) -> int:
        """See `Sink`."""
        if self._transport.is_closing():
            return 0
        answer = fcntl.ioctl(self._fd, termios.TIOCOUTQ, b"\0\0\0\0")
        unacknowledged: int = struct.unpack("i", answer)[0]
        return unacknowledged + self.unsent

    async def drained(self) -> None:
        """See `Sink`."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def abort(self) -> None:
        """See `Sink`."""
        self._transport.abort()
