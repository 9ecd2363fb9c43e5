"""A watcher on a raw socket: it reads when told to, and no more than it is told to."""

import asyncio
import json
import socket
import zlib
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tests.hub.sse import Event, Parser
from tests.secrecy import written

PATIENCE = 60.0


class Watching:
    """One open stream. Use as an async context manager."""

    def __init__(
        self,
        address: tuple[str, int],
        path: str,
        *,
        headers: dict[str, str] | None = None,
        receive_buffer: int | None = None,
        http: str = "1.1",
        many: bool = False,
    ) -> None:
        self._address = address
        self._path = path
        self._headers = headers or {}
        self._receive_buffer = receive_buffer
        self._http = http
        self._parser = Parser(many=many)
        self._pending: list[Event] = []
        self._chunk_rest = b""
        self._chunked = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        #: The bytes of the events, decoded from chunks.
        self.received = bytearray()
        #: The same with their content coding.
        self.coded = bytearray()
        #: Everything that was read so far, decoded from chunks.
        self.events: list[Event] = []
        self._ended = False
        #: Unpacks a stream in gzip.
        self._decoding: zlib._Decompress | None = None

    async def __aenter__(self) -> Self:
        sock = socket.socket()
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self._address)
        # A small limit: the reader's own buffer would read ahead.
        self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=2048)
        lines = [f"GET {self._path} HTTP/{self._http}", "Host: test"]
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
        first, *rest = head.decode().strip().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in rest)
        }
        self._chunked = self.headers.get("transfer-encoding") == "chunked"
        if self.headers.get("content-encoding") == "gzip":
            self._decoding = zlib.decompressobj(16 + zlib.MAX_WBITS)
        if self.status != 200 and "content-length" in self.headers:
            self.body = await self._reader.readexactly(int(self.headers["content-length"]))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        written("answer to a stream", self.body)
        for event in self.events:
            if event.name == "error":
                written("error of a stream", str(event.data))
        self._writer.transport.abort()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    @property
    def error(self) -> Any:
        return json.loads(self.body)["error"]

    async def next(self) -> Event:
        """The next event, bookmarks included."""
        while not self._pending:
            assert await self.read(65536), f"the stream ended after {self.events[-3:]}"
        return self._pending.pop(0)

    async def next_named(self, *names: str) -> Event:
        """The next event of one of these names; bookmarks are passed over, nothing else is."""
        while True:
            event = await self.next()
            if event.name in names:
                return event
            assert event.name == "bookmark", event

    async def logs(self, count: int) -> list[str]:
        """The messages of the next `count` events, all of which must be log entries."""
        return [(await self.next_named("log")).data["message"] for _ in range(count)]

    async def read(self, size: int) -> int:
        """Read at most `size` bytes; how many there were, 0 at the end."""
        async with asyncio.timeout(PATIENCE):
            data = await self._reader.read(size)
        if not data:
            assert self._parser.unfinished == b""
            return 0
        decoded = self._decoded(data)
        self.received += decoded
        for event in self._parser.feed(decoded):
            self.events.append(event)
            self._pending.append(event)
        return len(data)

    async def salvage(self) -> list[Event]:
        """Read what arrived before the connection broke; all whole events so far."""
        with suppress(ConnectionError):
            while data := await self._reader.read(65536):
                self.events.extend(self._parser.feed(self._decoded(data)))
        return self.events

    async def rest(self) -> list[Event]:
        """Read to the end of the stream; the events that were not taken yet."""
        while not self._ended and await self.read(65536):
            pass
        rest, self._pending = self._pending, []
        return rest

    @property
    def complete(self) -> bool:
        """Whether a stream in gzip has its trailer, and that is right."""
        assert self._decoding is not None
        return self._decoding.eof

    def _decoded(self, data: bytes) -> bytes:
        data = self._unchunk(data) if self._chunked else data
        self.coded += data
        return data if self._decoding is None else self._decoding.decompress(data)

    def _unchunk(self, data: bytes) -> bytes:
        """Decode HTTP/1.1 chunks, of which the last may be in part."""
        self._chunk_rest += data
        out = []
        while True:
            head, separator, rest = self._chunk_rest.partition(b"\r\n")
            if not separator:
                break
            size = int(head, 16)
            if len(rest) < size + 2:
                break
            assert rest[size : size + 2] == b"\r\n"
            out.append(rest[:size])
            self._chunk_rest = rest[size + 2 :]
            if size == 0:
                self._ended = True
                break
        return b"".join(out)
