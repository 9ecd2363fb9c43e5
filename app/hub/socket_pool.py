"""The sockets of all watchers, taken over from the HTTP server.

Once its headers are sent, a stream needs nothing of what a request needs: no
parser, no handler, no task. Its socket is taken over, and what stays is a file
descriptor in one selector that all watchers share.
"""

import asyncio
import fcntl
import os
import selectors
import socket
import struct
import termios
from typing import Protocol


class Owner(Protocol):
    """The owner of a socket, notified of its events."""

    def on_readable(self) -> None:
        """Something can be read: from a client that only listens, the end."""

    def on_writable(self) -> None:
        """More can be written; asked for with `SocketPool.await_room`."""


class SocketPool:
    """Watches all sockets through one selector, which the event loop watches as one file."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._selector = selectors.DefaultSelector()
        self._loop.add_reader(self._selector, self._turn)

    def add(self, fd: int, owner: Owner) -> None:
        """Begin to watch a socket for its end."""
        self._selector.register(fd, selectors.EVENT_READ, owner)

    def await_room(self, fd: int, owner: Owner, wanted: bool) -> None:
        """Notify the owner, or no longer, when the socket accepts more."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        self._selector.modify(fd, events, owner)

    def remove(self, fd: int) -> None:
        """No longer watch a socket; before it is closed."""
        self._selector.unregister(fd)

    def close(self) -> None:
        """End the watching; all sockets must have been removed."""
        self._loop.remove_reader(self._selector)
        self._selector.close()

    def _turn(self) -> None:
        for key, events in self._selector.select(0):
            if events & selectors.EVENT_READ:
                key.data.on_readable()
            if events & selectors.EVENT_WRITE:
                key.data.on_writable()


def outstanding(fd: int) -> int:
    """Return the bytes in the kernel that the client has not acknowledged."""
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))
    return int(count)


def reset(fd: int) -> None:
    """Have the connection reset when it is closed, whatever has not arrived yet."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        # On, for 0 seconds.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
