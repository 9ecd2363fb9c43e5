"""An HTTP/2 server that sends what a test tells it to, whether or not HTTP/2 has it so."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias

from app.bridge.transport import frames
from app.bridge.transport.frames import (
    PREFACE,
    Flag,
    Frame,
    FrameReader,
    Kind,
    Setting,
)

#: `:status: 200`, and how a call ends.
HEAD = b"\x88"
OK = b"\x00\x0bgrpc-status\x010"


def message(data: bytes, *, compressed: int = 0) -> bytes:
    return bytes((compressed,)) + len(data).to_bytes(4, "big") + data


def data(stream: int, content: bytes, flags: int = 0) -> bytes:
    return frames.frame(Kind.DATA, flags, stream, content)


def headers(stream: int, block: bytes, *, end: bool = False) -> bytes:
    flags = Flag.END_HEADERS | (Flag.END_STREAM if end else 0)
    return frames.frame(Kind.HEADERS, flags, stream, block)


def good_answer(stream: int, content: bytes) -> bytes:
    return headers(stream, HEAD) + data(stream, message(content)) + headers(stream, OK, end=True)


class Connection:
    """One that was accepted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        #: Whether it is one of the gateway's own, which alone wants no header table.
        self.direct = False
        self.requests = dict[int, bytes]()
        #: Set when the other side has reset a stream.
        self.reset = asyncio.Event()
        self.resets = dict[int, bytes]()

    def send(self, *what: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(b"".join(what))

    def close(self) -> None:
        """Send what is to be sent, and close it."""
        self._writer.close()
        self._reader.feed_eof()

    async def serve(self, demands: Mapping[int, int], begin: bytes, answer: "Script") -> None:
        """Answer requests until the other side goes."""
        received = FrameReader()
        await self._reader.readexactly(len(PREFACE))
        while given := await self._reader.read(64 * 1024):
            for frame in received.feed(given):
                self._take(frame, demands, begin, answer)

    def _take(
        self, frame: Frame, demands: Mapping[int, int], begin: bytes, answer: "Script"
    ) -> None:
        if frame.kind == Kind.SETTINGS and not frame.flags & Flag.ACK:
            demanded = dict(frames.settings_of(frame))
            self.direct = demanded.get(Setting.HEADER_TABLE_SIZE) == 0
            ack = frames.frame(Kind.SETTINGS, Flag.ACK, 0, b"")
            self.send(frames.settings(demands), ack, begin if self.direct else b"")
        elif frame.kind == Kind.PING and not frame.flags & Flag.ACK:
            self.send(frames.frame(Kind.PING, Flag.ACK, 0, frame.content))
        elif frame.kind == Kind.RST_STREAM:
            self.resets[frame.stream] = frame.content
            self.reset.set()
        elif frame.kind == Kind.DATA:
            self.requests[frame.stream] = self.requests.get(frame.stream, b"") + frame.content
            if frame.flags & Flag.END_STREAM:
                answer(self, frame.stream)


#: Answers the request that has this number.
Script: TypeAlias = Callable[[Connection, int], None]


class RawPeer:
    """Listens on a port of 127.0.0.1; all requests are answered by `script`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        #: Its settings.
        self.demands: Mapping[int, int] = {}
        #: What a connection of the gateway's own is told as soon as both have agreed.
        self.begin = b""
        self.connections: list[Connection] = []
        self.address = ""
        self._serving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["RawPeer"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        try:
            yield self
        finally:
            server.close()
            for connection in self.connections:
                connection.close()
            await asyncio.gather(*self._serving)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        connection = Connection(reader, writer)
        self.connections.append(connection)
        try:
            await connection.serve(self.demands, self.begin, lambda *given: self.script(*given))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            connection.close()
            self._serving.discard(task)
