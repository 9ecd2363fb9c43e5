"""When connections or descriptors run out, new ones are refused, and served again later."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
import structlog

from app.api.settings import ServerSettings
from app.gateway.settings import Settings
from tests.api.conftest import API_SECRET, Keys
from tests.api.raw_server import raw_server, request
from tests.api.test_application import SERVE, serving
from tests.scripted_coordinator import ScriptedCoordinator

HEALTH = request("GET /health HTTP/1.1")


async def test_connections_beyond_the_limit_are_closed_at_once(settings: Settings) -> None:
    server = ServerSettings(max_connections=3, head_timeout=300)
    async with raw_server(replace(settings, server=server)) as running, AsyncExitStack() as stack:
        first = await stack.enter_async_context(running.client())
        for _ in range(2):
            await stack.enter_async_context(running.client())
        await running.until_connections(3)
        with structlog.testing.capture_logs() as events:
            for _ in range(5):
                async with running.client() as refused:
                    assert await refused.rest() == b""
        (event,) = [each for each in events if each["event"] == "connections_refused"]
        assert (event["log_level"], event["reason"], event["open"]) == ("warning", "connections", 3)
        assert running.counted("scaimind_connections_refused_total", reason="connections") == 5
        # Those that were let in are served, and make room when they go.
        await first.send(HEALTH)
        assert (await first.answer()).status == 200
        first.writer.close()
        await running.until_connections(2)
        async with running.client() as later:
            await later.send(HEALTH)
            assert (await later.answer()).status == 200


@pytest.fixture
def environ(keys: Keys, coordinator: ScriptedCoordinator) -> Mapping[str, str]:
    return {
        "SCAIMIND_PORT": "0",
        "SCAIMIND_UPSTREAM_ADDRESS": coordinator.address,
        "SCAIMIND_UPSTREAM_API_SECRET": API_SECRET,
        "SCAIMIND_DATABASE_DSN": keys.dsn,
        "SCAIMIND_HEAD_TIMEOUT": "300",
    }


async def test_a_process_without_descriptors_refuses_and_goes_on(
    environ: Mapping[str, str],
) -> None:
    lowered = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))\n{SERVE}"
    async with serving(environ, script=lowered) as gateway, AsyncExitStack() as stack:
        address = urlsplit((await gateway.event("gateway_starting"))["url"])
        await gateway.event("gateway_ready_to_serve")

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            # Holds the writer, which must not be collected before it is closed.
            stack.callback(lambda: writer.transport.abort())
            return reader, writer

        silent = [await connect() for _ in range(200)]
        event = await gateway.event("connections_refused")
        assert (event["level"], event["reason"], event["limit"]) == ("warning", "descriptors", 128)
        reader, _ = silent[-1]
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        # One of those that were let in asks, and then a new one in its place.
        for _ in range(2):
            reader, writer = silent.pop(0)
            writer.write(HEALTH)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
            async with asyncio.timeout(60):
                while True:
                    reader, writer = await connect()
                    writer.write(HEALTH)
                    try:
                        if (await reader.readline()).startswith(b"HTTP/1.1 200"):
                            break
                    except ConnectionError:
                        continue
            writer.close()
        assert await gateway.stop(signal.SIGTERM) == 0
