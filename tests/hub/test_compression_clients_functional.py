"""Real clients see each event of a stream in gzip before there is another one."""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeAlias

import httpx2
import pytest
from playwright.async_api import Route

from app.hub.connection import GONE
from tests.console.browser import chromium
from tests.hub.conftest import Gateway, GatewayMaker
from tests.hub.log_coordinator import JOB, LogCoordinator
from tests.programs import program

#: A net, not an expectation.
PATIENCE = 60.0
#: A piece that is deflated, and one that is stored.
LINES = ("short", "long " + "x" * 5000)

#: What a client has of the stream: pieces of text as they come to it.
Pieces: TypeAlias = AsyncIterator[str]

_NODE = """
const answer = await fetch(process.argv[1]);
if (answer.headers.get("content-encoding") !== "gzip") throw new Error("no gzip");
for await (const piece of answer.body) process.stdout.write(piece);
"""
_PAGE = """
<script>
  const source = new EventSource(location.hash.slice(1));
  for (const name of ["bookmark", "log", "end"])
    source.addEventListener(name, (event) => {
      tell(`event: ${name}\\ndata: ${event.data}\\n\\n`);
      if (name === "end") source.close();
    });
</script>
"""


@asynccontextmanager
async def _program(*command: str) -> AsyncIterator[Pieces]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, limit=1 << 20
    )
    assert process.stdout is not None

    async def pieces() -> Pieces:
        assert process.stdout is not None
        while data := await process.stdout.read(65536):
            yield data.decode()
        # curl: a transfer that broke off.
        if await process.wait():
            yield f"\nbroken: status {process.returncode}\n"

    try:
        yield pieces()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def curl(url: str) -> AbstractAsyncContextManager[Pieces]:
    return _program(program("curl"), "--silent", "--no-buffer", "--compressed", url)


def node(url: str) -> AbstractAsyncContextManager[Pieces]:
    return _program(program("node", "nodejs"), "--input-type=module", "--eval", _NODE, url)


@asynccontextmanager
async def python(url: str) -> AsyncIterator[Pieces]:
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
        client.stream("GET", url) as answer,
    ):
        assert answer.headers["content-encoding"] == "gzip"

        async def pieces() -> Pieces:
            try:
                async for piece in answer.aiter_text():
                    yield piece
            except httpx2.TransportError as error:
                yield f"\nbroken: {error!r}\n"

        yield pieces()


@asynccontextmanager
async def browser(url: str) -> AsyncIterator[Pieces]:
    told: asyncio.Queue[str] = asyncio.Queue()
    origin, _, path = url.rpartition("/jobs/")

    async def show(route: Route) -> None:
        await route.fulfill(body=_PAGE, content_type="text/html")

    async with chromium() as running:
        page = await running.new_page()
        await page.expose_function("tell", told.put_nowait)
        await page.route(f"{origin}/page", show)
        await page.goto(f"{origin}/page#/jobs/{path}")

        async def pieces() -> Pieces:
            while True:
                yield await told.get()

        yield pieces()


Client: TypeAlias = Callable[[str], AbstractAsyncContextManager[Pieces]]
CLIENTS = (curl, node, python, browser)


class Reader:
    """Reads a client's pieces up to something."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self.text = ""

    async def until(self, wanted: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while wanted not in self.text:
                self.text += await anext(self._pieces)


def url_of(gateway: Gateway) -> str:
    return str(gateway.server.make_url(f"/jobs/{JOB}/logs")) + "?tail=0"


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
async def test_a_client_sees_each_event_as_it_comes(
    make_gateway: GatewayMaker,
    coordinator: LogCoordinator,
    client: Client,
    record_property: Callable[[str, object], None],
) -> None:
    gateway = await make_gateway(compression="gzip")
    async with client(url_of(gateway)) as pieces:
        reader, latencies = Reader(pieces), list[float]()
        await reader.until("event: bookmark")
        for number in range(6):
            line = f"{number} {LINES[number % 2]}"
            written = time.perf_counter()
            await coordinator.log(line)
            # Nothing else comes meanwhile that could push it out of a buffer.
            await reader.until(json.dumps(line))
            latencies.append((time.perf_counter() - written) * 1000)
        await coordinator.end()
        await reader.until("event: end")
    assert "broken" not in reader.text
    milliseconds = f"median {statistics.median(latencies):.1f}, longest {max(latencies):.1f}"
    record_property("an entry in gzip is seen after, ms", milliseconds)


@pytest.mark.parametrize("client", [curl, python], ids=lambda client: client.__name__)
async def test_a_client_notices_a_stream_that_is_cut(
    make_gateway: GatewayMaker, coordinator: LogCoordinator, client: Client
) -> None:
    """Node's fetch does not: its decoder drops the error. `end` or `error` tell it, too."""
    gateway = await make_gateway(compression="gzip")
    async with client(url_of(gateway)) as pieces:
        reader = Reader(pieces)
        await reader.until("event: bookmark")
        await coordinator.log("the last line")
        await reader.until("the last line")
        [connection] = gateway.hub.streams
        connection.close(GONE)
        await reader.until("broken: ")
