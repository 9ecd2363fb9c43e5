"""A gateway as it is served, spoken to byte by byte."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from aiohttp import web

from app.api.app_keys import METRICS
from app.gateway.application import create_app
from app.gateway.http_server import Runner
from app.gateway.settings import Settings

#: Seconds; only so that a test that hangs ends.
SAFETY_NET = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as far as it was sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error's code."""
        code: str = json.loads(self.body)["error"]["code"]
        return code


def parse(data: bytes) -> list[Answer]:
    """Take answers with a `Content-Length` apart; the last one may be cut."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
        }
        size = int(headers.get("content-length", 0))
        found.append(Answer(int(first.split()[1]), headers, rest[:size]))
        data = rest[size:]
    return found


class Client:
    """A connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        async with asyncio.timeout(SAFETY_NET):
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()

    async def answer(self) -> Answer:
        """Read one answer."""
        async with asyncio.timeout(SAFETY_NET):
            head = await self.reader.readuntil(b"\r\n\r\n")
            (found,) = parse(head)
            size = int(found.headers.get("content-length", 0))
            return Answer(found.status, found.headers, await self.reader.readexactly(size))

    async def rest(self) -> bytes:
        """Read until the gateway closes the connection."""
        async with asyncio.timeout(SAFETY_NET):
            return await self.reader.read()

    async def trickle(self, data: bytes, *, every: float) -> None:
        """Send a byte now and then, until nobody takes any more."""
        try:
            for byte in data:
                self.writer.write(bytes((byte,)))
                await self.writer.drain()
                await asyncio.sleep(every)
        except ConnectionError:
            return
        raise AssertionError("the gateway took all of it")


class RawServer:
    """A gateway on a port of its own."""

    def __init__(self, app: web.Application, runner: Runner) -> None:
        self.app = app
        self._runner = runner

    @property
    def port(self) -> int:
        port: int = self._runner.addresses[0][1]
        return port

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        """Open a connection."""
        async with asyncio.timeout(SAFETY_NET):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()

    async def send(self, *parts: bytes) -> list[Answer]:
        """Send bytes, and read until the gateway closes the connection."""
        async with self.client() as client:
            await client.send(*parts)
            return parse(await client.rest())

    async def until_connections(self, number: int) -> None:
        """Wait until so many connections are open."""
        assert self._runner.server is not None
        async with asyncio.timeout(SAFETY_NET):
            while len(self._runner.server.connections) != number:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.02)

    def connections(self) -> list[socket.socket]:
        """Return the gateway's sockets of the open connections."""
        assert self._runner.server is not None
        transports = [each.transport for each in self._runner.server.connections]
        return [each.get_extra_info("socket") for each in transports if each is not None]

    def counted(self, name: str, **labels: str) -> float | None:
        return self.app[METRICS].registry.get_sample_value(name, labels)


@asynccontextmanager
async def raw_server(settings: Settings) -> AsyncIterator[RawServer]:
    """Serve a gateway."""
    app = create_app(settings)
    runner = Runner.of(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield RawServer(app, runner)
    finally:
        await runner.cleanup()


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """Make a request for one connection that is kept open."""
    return "\r\n".join((line, "Host: test", *headers, "", "")).encode() + body


@contextmanager
def no_error_logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Fail if anything is logged at error, or with a traceback, by whatever logger."""
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as events:
        yield events
    bad = [
        event
        for event in events
        if event["log_level"] in ("error", "critical") or event.get("exc_info")
    ]
    assert not bad, bad
    records = [
        each
        for each in caplog.records
        if (each.levelno >= logging.ERROR or each.exc_info)
        # Threads that export traces outlive the tests that began them.
        and not each.name.startswith("opentelemetry.")
    ]
    assert not records, [(each.name, each.getMessage(), each.exc_info) for each in records]
