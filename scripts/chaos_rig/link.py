"""A network between two programs that can be cut, stalled and slowed down."""

import asyncio
import socket
from contextlib import suppress
from typing import Self

PIECE = 16 * 1024


class Link:
    """Passes TCP connections on to `target`, as well as it is told to."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        #: Seconds by which each piece is late.
        self.delay = 0.0
        #: Whether new connections are refused.
        self.refusing = False
        #: Cleared, nothing passes, and nobody is told.
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Reset all connections, and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._connections:
            _reset(writer)
        self._connections.clear()

    def stall(self) -> None:
        """Let nothing pass, without a word to anybody, until `resume`."""
        self._passing.clear()

    def resume(self) -> None:
        """Let everything pass again."""
        self._passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._connections.add(writer)
        try:
            if self.refusing:
                return
            further, onward = await asyncio.open_connection("127.0.0.1", self._target)
            self._connections.add(onward)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(reader, onward), name="link-there")
                    group.create_task(self._pass(further, writer), name="link-back")
            finally:
                self._connections.discard(onward)
                _reset(onward)
        except* OSError:
            pass
        finally:
            self._connections.discard(writer)
            _reset(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(PIECE):
            await self._passing.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other side is told of a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        with suppress(OSError):
            # Linger for 0 seconds: a reset in place of an end.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
