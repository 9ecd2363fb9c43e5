"""A client as the browsers' EventSource is (WHATWG HTML, section 9.2).

It connects again after any break, as late as the stream's `retry` says, with
the id of the last event; and, as browsers do, it gives up for good when it is
answered with anything but a 200 and an event stream.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass
class Crowd:
    """What all clients of a test share."""

    #: Notified whenever a client connects, is sent away, or is done.
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    connected: int = 0
    #: How often any of them has connected.
    arrivals: int = 0
    #: What clients were told to wait, in ms, by the farewell of a replica that stopped.
    told: list[int] = field(default_factory=list)
    #: When clients that had been sent away so came back, in seconds of a steady clock.
    came_back: list[float] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    gaps: list[bytes] = field(default_factory=list)

    async def all_connected(self, count: int, *, arrivals: int = 0) -> None:
        """Wait until so many are connected, and have connected so often, all of them together."""

        def here() -> bool:
            return self.connected == count and self.arrivals >= arrivals

        async with self.changed:
            await self.changed.wait_for(lambda: here() or self.given_up)
        assert not self.given_up, self.given_up[:3]


class EventSource:
    """One client of one stream, which reads to the stream's `end`."""

    def __init__(self, crowd: Crowd, *, port: int, path: str, key: str) -> None:
        self._crowd = crowd
        self._port = port
        self._path = path
        self._key = key
        #: Seconds; what a browser takes is up to it until it is told.
        self._retry = 1.0
        self._was_sent_away = False
        self.last_id = ""
        #: Offsets of the entries that it got, in order of arrival.
        self.offsets: list[int] = []
        self.ended = False

    async def run(self) -> None:
        """Read to the end of the job's log."""
        while not self.ended:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    if not await self._ask(reader, writer):
                        return
                    await self._arrived()
                    try:
                        await self._read(reader)
                    finally:
                        await self._left()
                finally:
                    writer.transport.abort()
                    with suppress(ConnectionError):
                        await writer.wait_closed()
            if not self.ended:
                await asyncio.sleep(self._retry)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        last = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        writer.write(
            f"GET {self._path} HTTP/1.1\r\nHost: scaimind.example.com\r\n"
            f"Authorization: Bearer {self._key}\r\nAccept: text/event-stream\r\n{last}\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if " 200 " not in head.split("\r\n")[0] or "content-type: text/event-stream" not in head:
            async with self._crowd.changed:
                self._crowd.given_up.append(f"{self._path} {self.last_id}: {head}")
                self._crowd.changed.notify_all()
            return False
        assert "transfer-encoding: chunked" in head
        return True

    async def _arrived(self) -> None:
        if self._was_sent_away:
            self._was_sent_away = False
            self._crowd.came_back.append(time.monotonic())
        async with self._crowd.changed:
            self._crowd.connected += 1
            self._crowd.arrivals += 1
            self._crowd.changed.notify_all()

    async def _left(self) -> None:
        async with self._crowd.changed:
            self._crowd.connected -= 1
            self._crowd.changed.notify_all()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        async for data in _chunks(reader):
            # What is not a whole event is not dispatched, nor is its id kept.
            *blocks, rest = (rest + data).split(b"\n\n")
            for block in blocks:
                self._dispatch(block)

    def _dispatch(self, block: bytes) -> None:
        fields = dict(
            line.split(b": ", 1) for line in block.split(b"\n") if line and line[:1] != b":"
        )
        self.last_id = fields[b"id"].decode()
        if b"retry" in fields:
            self._retry = int(fields[b"retry"]) / 1000
        match fields[b"event"]:
            case b"log":
                self.offsets.append(int(self.last_id.partition(":")[2]))
            case b"end":
                self.ended = True
            case b"error":
                assert b"SHUTTING_DOWN" in fields[b"data"], block
                self._was_sent_away = True
                self._crowd.told.append(int(fields[b"retry"]))
            case b"gap":
                self._crowd.gaps.append(block)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The chunks of a body (RFC 9112, section 7.1)."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        data = await reader.readexactly(size + 2)
        yield data[:-2]
