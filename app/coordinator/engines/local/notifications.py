"""How runners tell the coordinator that something is new: datagrams that hold a job's id.

A notification may be lost when nobody listens; what it is about is in the job's
files, and the coordinator looks there when it starts.
"""

import os
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The runner sends notices, and must start fast.
    import asyncio

_LONGEST = 100
_BATCH = 256


class _Address:
    """A socket's address for a path of any length (those of Unix sockets end at 108 bytes)."""

    def __init__(self, path: Path) -> None:
        self._directory: int | None = None
        self.text = str(path)
        if len(os.fsencode(path)) > _LONGEST:
            self._directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.text = f"/proc/self/fd/{self._directory}/{path.name}"

    def close(self) -> None:
        if self._directory is not None:
            os.close(self._directory)


class NotificationSender:
    """The runner's end."""

    def __init__(self, path: Path) -> None:
        self._address = _Address(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def send(self, job_id: str) -> None:
        """Notify the coordinator about a job; never waits."""
        # Whatever keeps a notification from it: nothing depends on one.
        with suppress(OSError):
            self._socket.sendto(job_id.encode(), self._address.text)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._address.close()


class NotificationReceiver:
    """The coordinator's end: calls `tell` with the id of each job that has something new."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path = path
        self._tell = tell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        path.unlink(missing_ok=True)
        with closing(_Address(path)) as address:
            self._socket.bind(address.text)

    def start(self, loop: "asyncio.AbstractEventLoop") -> None:
        """Listen on `loop`."""
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._receive)

    def close(self) -> None:
        """Stop listening."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _receive(self) -> None:
        told: set[str] = set()
        with suppress(BlockingIOError):
            for _ in range(_BATCH):
                told.add(self._socket.recv(256).decode("ascii", "replace"))
        for job_id in told:
            self._tell(job_id)
