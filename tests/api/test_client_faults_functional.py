"""Whatever a client does wrong is logged as its fault: never at error, never with a traceback."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.gateway.settings import Settings
from app.scaikey.api_keys import NewKey
from tests.api.conftest import Keys
from tests.api.endpoints import PREFIX
from tests.api.raw_server import RawServer, no_error_logged, raw_server, request
from tests.hub.log_coordinator import JOB, LogCoordinator, one_job
from tests.replicas import new_key, settings_for

JOBS = f"{PREFIX}/jobs"
UPGRADE = ("Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")

#: Each is sent, and the connection read to its end.
ODDITIES: dict[str, bytes] = {
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "an SSH greeting": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "HTTP/2 with prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 20,
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "zeros": b"\x00" * 5000,
    "new lines": b"\r\n" * 5000,
    "a proxy header": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /health HTTP/1.1\r\n\r\n",
    "10,000 tiny headers": b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 10_000 + b"\r\n",
    "CONNECT": request("CONNECT example.com:443 HTTP/1.1"),
    "CONNECT to nothing": request("CONNECT / HTTP/1.1"),
    "OPTIONS *": request("OPTIONS * HTTP/1.1", "Connection: close"),
    "TRACE": request(f"TRACE {JOBS} HTTP/1.1", "Connection: close"),
    "an absolute URL": request("GET http://elsewhere.example/health HTTP/1.1", "Connection: close"),
    "a URL with an authority": request(
        "GET //elsewhere.example/health HTTP/1.1", "Connection: close"
    ),
    "a URL of a bad port": request("GET http://x:99999999/ HTTP/1.1", "Connection: close"),
    "a URL of brackets": request("GET http://[::1/ HTTP/1.1", "Connection: close"),
    "a path of bad escapes": request("GET /%zz/%/%ff%fe/%00 HTTP/1.1", "Connection: close"),
    "a path that is not UTF-8": request("GET /", "Connection: close").replace(
        b"GET /", b"GET /\xff\xfe HTTP/1.1"
    ),
    "a query of bad escapes": request(f"GET {JOBS}?%zz=%ff&&=&a HTTP/1.1", "Connection: close"),
    "a job of bad escapes": request(f"GET {JOBS}/%ff%fe HTTP/1.1", "Connection: close"),
    "a fragment": request("GET /health#x HTTP/1.1", "Connection: close"),
    "HEAD of a stream": request(f"HEAD {JOBS}/j/logs HTTP/1.1", "Connection: close"),
    "HEAD with a body": request(
        "HEAD /health HTTP/1.1", "Content-Length: 3", "Connection: close", body=b"abc"
    ),
    "OPTIONS with a body": request(
        f"OPTIONS {JOBS} HTTP/1.1", "Content-Length: 3", "Connection: close", body=b"abc"
    ),
    "a websocket": request("GET /health HTTP/1.1", "Upgrade: websocket", *UPGRADE),
    "a websocket with more behind it": request(
        "GET /health HTTP/1.1", "Upgrade: websocket", *UPGRADE, body=b"\x81\x85" + b"x" * 300
    ),
    "an old websocket": request(
        "GET /health HTTP/1.1", "Upgrade: websocket", *UPGRADE, "Sec-WebSocket-Key1: 1"
    ),
    "h2c": request(
        "GET /health HTTP/1.1",
        "Connection: Upgrade, HTTP2-Settings, close",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    ),
    "an upgrade to nothing": request("POST /health HTTP/1.1", "Upgrade: \xff", *UPGRADE),
    "two hosts": request("GET /health HTTP/1.1", "Host: other"),
    "a bad host": b"GET /health HTTP/1.1\r\nHost: a b:c:d\r\nConnection: close\r\n\r\n",
    "folded headers": request("GET /health HTTP/1.1", "X: a\r\n b", "Connection: close"),
    "a negative length": request("POST /health HTTP/1.1", "Content-Length: -1"),
    "an endless length": request("POST /health HTTP/1.1", "Content-Length: " + "9" * 30),
    "a length with a sign": request("POST /health HTTP/1.1", "Content-Length: +3", body=b"abc"),
    "more than the length": request("POST /health HTTP/1.1", "Content-Length: 1", body=b"abcdef"),
    "a chunk size without an end": request(
        f"POST {JOBS} HTTP/1.1", "Transfer-Encoding: chunked", body=b"f" * 40 + b"\r\n"
    ),
    "a chunk that is longer": request(
        f"POST {JOBS} HTTP/1.1", "Transfer-Encoding: chunked", body=b"1\r\nabc\r\n0\r\n\r\n"
    ),
    "bad trailers": request(
        f"POST {JOBS} HTTP/1.1", "Transfer-Encoding: chunked", body=b"0\r\n\x00: x\r\n\r\n"
    ),
    "many trailers": request(
        f"POST {JOBS} HTTP/1.1", "Transfer-Encoding: chunked", body=b"0\r\n" + b"a: b\r\n" * 999
    ),
    "another transfer coding": request(
        f"POST {JOBS} HTTP/1.1",
        "Transfer-Encoding: gzip, chunked",
        "Connection: close",
        body=b"0\r\n\r\n",
    ),
    "a transfer coding alone": request(f"POST {JOBS} HTTP/1.1", "Transfer-Encoding: gzip"),
    "bad UTF-8 in headers": b"GET /health HTTP/1.1\r\nHost: x\r\nX-Request-ID: \xff\xfe\r\n"
    b"Origin: \xff\r\nAuthorization: Bearer \xff\r\nConnection: close\r\n\r\n",
    "a range": request(f"GET {PREFIX}/docs HTTP/1.1", "Range: bytes=9-1", "Connection: close"),
    "a bad range": request(f"GET {PREFIX}/docs HTTP/1.1", "Range: bytes=x", "Connection: close"),
    "a bad date": request(
        f"GET {PREFIX}/docs HTTP/1.1", "If-Modified-Since: x" + "9" * 99, "Connection: close"
    ),
    "a bad tag": request(
        f"GET {PREFIX}/openapi.json HTTP/1.1", 'If-None-Match: W/"a', "Connection: close"
    ),
    "a bad type": request(
        f"POST {JOBS} HTTP/1.1", 'Content-Type: ;;;="', "Content-Length: 0", "Connection: close"
    ),
    "a bad charset": request(
        f"POST {JOBS} HTTP/1.1",
        'Content-Type: application/json; charset="\x7f',
        "Content-Length: 2",
        "Connection: close",
        body=b"{}",
    ),
    "a bad cookie": request("GET /health HTTP/1.1", "Cookie: a=\x01;;=", "Connection: close"),
    "requests and then no request": request("GET /health HTTP/1.1") * 40 + b"\x00\x00\r\n\r\n",
}


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[RawServer]:
    async with raw_server(settings) as running:
        yield running


def reset(sock: socket.socket) -> None:
    """Have the connection reset when the socket is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def connected(server: RawServer) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    return sock


@pytest.mark.parametrize("with_token", [True, False], ids=["token", "no token"])
async def test_oddities_are_no_error_of_ours(
    server: RawServer, keys: Keys, caplog: pytest.LogCaptureFixture, with_token: bool
) -> None:
    token = b"\r\nAuthorization: Bearer " + keys.admin.encode()
    with no_error_logged(caplog):
        for what, data in ODDITIES.items():
            if with_token:
                data = data.replace(b"\r\nHost: test", b"\r\nHost: test" + token)
            async with server.client() as client:
                await client.send(data)
                client.writer.write_eof()
                try:
                    answered = await client.rest()
                except ConnectionError:
                    continue
                assert b" 500 " not in answered, what
        (health,) = await server.send(request("GET /health HTTP/1.1", "Connection: close"))
        assert health.status == 200
    await server.until_connections(0)


@pytest.mark.parametrize("cut", [1, 20, 60, 150, 300, 10_000])
async def test_connections_that_are_reset_in_the_middle(
    server: RawServer, keys: Keys, caplog: pytest.LogCaptureFixture, cut: int
) -> None:
    whole = request(
        f"POST {JOBS}/job-1/cancel HTTP/1.1",
        f"Authorization: Bearer {keys.admin}",
        "Content-Type: application/json",
        "Content-Length: 100000",
        body=b" " * 50_000,
    )
    with no_error_logged(caplog):
        for _ in range(10):
            sock = await connected(server)
            await asyncio.get_running_loop().sock_sendall(sock, whole[:cut])
            await server.until_connections(1)
            reset(sock)
            await server.until_connections(0)


async def test_a_client_that_leaves_in_the_middle_of_an_answer(
    server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    asked = request(f"GET {PREFIX}/docs/swagger-ui-bundle.js HTTP/1.1") * 5
    with no_error_logged(caplog):
        for _ in range(10):
            sock = await connected(server)
            await asyncio.get_running_loop().sock_sendall(sock, asked)
            assert await asyncio.get_running_loop().sock_recv(sock, 1000)
            reset(sock)
        await server.until_connections(0)


@pytest.fixture
async def coordinator_of_logs() -> AsyncIterator[LogCoordinator]:
    async with one_job() as running:
        yield running


@pytest.fixture
async def key(migrated_dsn: str) -> NewKey:
    return await new_key(migrated_dsn)


@pytest.mark.parametrize("kind", ["logs", "metrics/stream"])
@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_a_client_that_leaves_right_after_asking_for_a_stream(
    migrated_dsn: str,
    coordinator_of_logs: LogCoordinator,
    key: NewKey,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    how: str,
) -> None:
    asked = request(f"GET {JOBS}/{JOB}/{kind} HTTP/1.1", f"Authorization: Bearer {key.secret}")
    settings = settings_for(migrated_dsn, coordinator_of_logs.address)
    async with raw_server(settings) as server:
        with no_error_logged(caplog) as events:
            for _ in range(20):
                sock = await connected(server)
                await asyncio.get_running_loop().sock_sendall(sock, asked)
                reset(sock) if how == "reset" else sock.close()
            async with asyncio.timeout(60):
                while len(ended(events)) < 20:  # noqa: ASYNC110 - a log has no event
                    await asyncio.sleep(0.02)
            await server.until_connections(0)
        assert {event["status"] for event in ended(events)} <= {200, 499}


def ended(events: list[Any]) -> list[Any]:
    return [event for event in events if event["event"] == "request"]
