"""What is not HTTP, or too much of it: our own answer, one log line, and no word of the request."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog
from aiohttp import web

from app.api.app_keys import METRICS
from app.api.settings import CorsSettings, ServerSettings
from app.configuration.section import KiB
from app.gateway.application import create_app
from app.gateway.http_server import Runner
from app.gateway.settings import Settings
from tests.api.conftest import Keys
from tests.api.endpoints import PREFIX

SECRET = "sgk_" + "s" * 43
LIMITS = ServerSettings(
    max_line_bytes=2 * KiB, max_header_bytes=8 * KiB, max_headers=20, hsts_max_age=60
)


class Server:
    """A gateway as it is served, on a port of its own."""

    def __init__(self, app: web.Application, port: int) -> None:
        self.app = app
        self._port = port

    async def send(self, data: bytes, *more: bytes) -> bytes:
        """Send bytes, and read until the gateway closes the connection."""
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                for part in (data, *more):
                    writer.write(part)
                    await writer.drain()
                return await reader.read()
            finally:
                writer.transport.abort()


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    cors = CorsSettings(origins=("https://app.example.com",))
    app = create_app(replace(settings, server=LIMITS, cors=cors))
    runner = Runner.of(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield Server(app, runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.fixture
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def request(line: str = f"GET {PREFIX}/jobs HTTP/1.1", *headers: str) -> bytes:
    lines = (line, "Host: test", "Connection: close", *headers)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read(answer: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    return int(first.split()[1]), headers, json.loads(body)


TOO_MUCH = {
    "a line": (request(f"GET /jobs?ticket={SECRET}{'x' * 3000} HTTP/1.1"), 414, "URI_TOO_LONG"),
    "a header": (
        request("GET /health HTTP/1.1", f"Authorization: Bearer {SECRET}{'x' * 9000}"),
        431,
        "HEADERS_TOO_LARGE",
    ),
    "a name": (
        request("GET /health HTTP/1.1", f"{SECRET}{'x' * 9000}: x"),
        431,
        "HEADERS_TOO_LARGE",
    ),
    "empty lines": (b"\r\n" * 200_000, 431, "HEADERS_TOO_LARGE"),
    "headers": (
        request(
            "GET /health HTTP/1.1",
            f"Authorization: Bearer {SECRET}",
            *(f"X-{n}: x" for n in range(30)),
        ),
        431,
        "HEADERS_TOO_LARGE",
    ),
}
NOT_HTTP = {
    "no method": request(f"{SECRET} /health HTTP/1.1"),
    "words": f"hello, here is {SECRET}\r\n\r\n".encode(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET.encode(),
    "a version": request("GET /health HTTP/9.9", f"Authorization: Bearer {SECRET}"),
    "no host": f"GET /health HTTP/1.1\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode(),
    "a header's name": request("GET /health HTTP/1.1", f"Bad Header {SECRET}: x"),
    "NUL": request("GET /health HTTP/1.1", f"Authorization: Bearer {SECRET}\x00"),
    "two lengths": request("POST /health HTTP/1.1", "Content-Length: 1", "Content-Length: 2"),
    "length and chunks": request(
        "POST /health HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"
    ),
    "a length": request("POST /health HTTP/1.1", f"Content-Length: {SECRET}"),
    "a URL": request(f"GET http://[{SECRET} HTTP/1.1"),
}


def check(answer: bytes, status: int, code: str) -> None:
    found, headers, body = read(answer)
    assert (found, body["error"]["code"]) == (status, code)
    assert body["status"] == "error"
    assert body["meta"] == {"request_id": headers["x-request-id"]}
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["strict-transport-security"] == "max-age=60"
    assert headers["server"] == "scaimind"
    assert SECRET[4:20].encode() not in answer


@pytest.mark.parametrize("what", TOO_MUCH)
async def test_too_much(server: Server, events: list[Any], what: str) -> None:
    data, status, code = TOO_MUCH[what]
    check(await server.send(data), status, code)
    told(server, events, status, code)


@pytest.mark.parametrize("what", NOT_HTTP)
async def test_what_is_not_http(server: Server, events: list[Any], what: str) -> None:
    check(await server.send(NOT_HTTP[what]), 400, "MALFORMED_REQUEST")
    told(server, events, 400, "MALFORMED_REQUEST")


def told(server: Server, events: list[Any], status: int, code: str) -> None:
    """One line that tells what kind of thing it was, and nothing of what was sent."""
    [event] = [each for each in events if each["event"] == "request_unreadable"]
    assert event["code"] == code
    assert event["remote"] == "127.0.0.1"
    assert "exc_info" not in event
    assert SECRET[4:20] not in str(events)
    counted = server.app[METRICS].registry.get_sample_value(
        "scaimind_requests_total", {"method": "OTHER", "route": "unreadable", "status": str(status)}
    )
    assert counted == 1


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
async def test_a_broken_chunk(server: Server, events: list[Any], keys: Keys, at_once: bool) -> None:
    head = request(
        f"POST {PREFIX}/jobs HTTP/1.1",
        f"Authorization: Bearer {keys.admin}",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
    )
    broken = b"zz" + SECRET.encode() + b"\r\n{}\r\n0\r\n\r\n"
    answer = await (server.send(head + broken) if at_once else server.send(head, broken))
    status, _, body = read(answer)
    assert (status, body["error"]["code"]) == (400, "MALFORMED_REQUEST")
    assert SECRET[4:20] not in str(events) + str(body)
    assert not [event for event in events if "exc_info" in event], events


async def test_a_body_beyond_the_limit(server: Server, keys: Keys) -> None:
    head = request(
        f"POST {PREFIX}/jobs HTTP/1.1",
        f"Authorization: Bearer {keys.admin}",
        "Content-Type: application/json",
        f"Content-Length: {2 * 1024 * 1024}",
    )
    status, _, body = read(await server.send(head, b"{" + b" " * (2 * 1024 * 1024 - 1)))
    assert (status, body["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_what_is_within_the_limits_passes(server: Server, keys: Keys) -> None:
    many = [f"X-{number}: {'x' * 400}" for number in range(15)]
    answer = await server.send(
        request(
            f"GET {PREFIX}/jobs?page_token={'x' * 900} HTTP/1.1",
            f"Authorization: Bearer {keys.admin}",
            *many,
        )
    )
    assert read(answer)[0] == 200


async def test_a_page_of_another_origin_reads_a_stream(server: Server, keys: Keys) -> None:
    answer = await server.send(
        request(
            f"GET {PREFIX}/jobs/job-1/logs?ticket=none HTTP/1.1", "Origin: https://app.example.com"
        )
    )
    status, headers, _ = read(answer)
    assert status == 401
    assert headers["access-control-allow-origin"] == "https://app.example.com"
