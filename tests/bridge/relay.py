"""A connection to the coordinator that a test can have fall silent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    """Carries bytes between a client and a server until it is told to fall silent.

    A silent relay keeps its connections open and reads nothing, as a peer does
    that hangs or whose machine is gone. What it carries arrives `delay` seconds late.
    """

    def __init__(self, port: int, *, delay: float = 0.0) -> None:
        self._upstream_port = port
        self._delay = delay
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.connections = 0
        self.address = ""

    def fall_silent(self) -> None:
        self._open.clear()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._writers:
                writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        self._writers += [writer, upstream[1]]
        for source, sink in ((reader, upstream[1]), (upstream[0], writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._open.wait()
            await asyncio.sleep(self._delay)
            sink.write(data)
            await sink.drain()
        sink.close()
