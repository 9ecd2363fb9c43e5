"""Connections that say nothing, or too little, or take nothing end; those with progress do not."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.api.settings import ServerSettings
from app.gateway import connection
from app.gateway.settings import Settings
from tests.api.conftest import Keys
from tests.api.endpoints import PREFIX
from tests.api.raw_server import RawServer, no_error_logged, parse, raw_server, request

LONG = 300.0
CANCEL = f"POST {PREFIX}/jobs/job-1/cancel HTTP/1.1"
HEALTH = request("GET /health HTTP/1.1")


@pytest.fixture
async def impatient(settings: Settings) -> AsyncIterator[RawServer]:
    """Half a second for a head, a body and an answer, and a second between requests."""
    server = ServerSettings(
        head_timeout=0.5,
        body_timeout=0.5,
        answer_timeout=0.5,
        idle_timeout=1.0,
        min_rate=100 * 1024 * 1024,
    )
    async with raw_server(replace(settings, server=server)) as running:
        yield running


def with_body(keys: Keys, *headers: str, body: bytes = b"") -> bytes:
    return request(
        CANCEL,
        f"Authorization: Bearer {keys.admin}",
        "Content-Type: application/json",
        *headers,
        body=body,
    )


async def test_a_connection_that_says_nothing_is_closed_without_a_word(
    impatient: RawServer,
) -> None:
    async with impatient.client() as client:
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "half",
    [
        b"G",
        b"\r\n",
        b"GET /health HTTP/1.1\r\n",
        b"GET /health HTTP/1.1\r\nHost: test\r\n",
        b"GET /health HTTP/1.1\r\nHost: te",
    ],
)
async def test_half_a_head_is_refused(
    impatient: RawServer, half: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with no_error_logged(caplog):
        (answer,) = await impatient.send(half)
    assert (answer.status, answer.code) == (408, "REQUEST_TIMEOUT")
    counted = impatient.counted(
        "scaimind_requests_total", method="OTHER", route="unreadable", status="408"
    )
    assert counted == 1


async def test_a_byte_now_and_then_does_not_stop_the_heads_clock(impatient: RawServer) -> None:
    async with impatient.client() as client:
        trickling = asyncio.create_task(
            client.trickle(request("GET /health HTTP/1.1", "X: " + "x" * 4000), every=0.05)
        )
        (answer,) = parse(await client.rest())
        assert (answer.status, answer.code) == (408, "REQUEST_TIMEOUT")
        await trickling


async def test_the_head_of_a_later_request_has_its_own_time(impatient: RawServer) -> None:
    async with impatient.client() as client:
        for _ in range(3):
            await client.send(HEALTH)
            assert (await client.answer()).status == 200
        await client.send(b"GET /health HT")
        (answer,) = parse(await client.rest())
        assert answer.code == "REQUEST_TIMEOUT"


async def test_a_head_in_pieces_is_taken_if_it_comes_in_time(settings: Settings) -> None:
    server = ServerSettings(head_timeout=LONG, idle_timeout=LONG)
    async with (
        raw_server(replace(settings, server=server)) as running,
        running.client() as client,
    ):
        for _ in range(2):
            for byte in HEALTH:
                await client.send(bytes((byte,)))
            assert (await client.answer()).status == 200


async def test_a_head_that_has_begun_is_not_cut_off_by_the_limit_of_idle_connections(
    settings: Settings,
) -> None:
    server = ServerSettings(head_timeout=LONG, idle_timeout=1.0)
    async with (
        raw_server(replace(settings, server=server)) as running,
        running.client() as client,
    ):
        for _ in range(2):
            await client.send(HEALTH[:10])
            await asyncio.sleep(1.5)  # the client's pace
            await client.send(HEALTH[10:])
            assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_an_idle_connection_is_closed_without_a_word(impatient: RawServer) -> None:
    async with impatient.client() as client:
        await client.send(HEALTH)
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


@pytest.mark.parametrize("half", [b"", b'{"reason": '])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_half_a_body_is_refused(
    impatient: RawServer, keys: Keys, half: bytes, framing: str, caplog: pytest.LogCaptureFixture
) -> None:
    chunked = "chunked" in framing and half
    body = b"%x\r\n%b\r\n" % (len(half), half) if chunked else half
    with no_error_logged(caplog):
        (answer,) = await impatient.send(with_body(keys, framing, body=body))
    assert (answer.status, answer.code) == (408, "REQUEST_TIMEOUT")
    assert answer.headers["connection"] == "close"


async def test_a_byte_now_and_then_does_not_stop_the_bodys_clock(
    impatient: RawServer, keys: Keys
) -> None:
    async with impatient.client() as client:
        await client.send(with_body(keys, "Content-Length: 4000"))
        trickling = asyncio.create_task(client.trickle(b"x" * 4000, every=0.05))
        (answer,) = parse(await client.rest())
        assert answer.code == "REQUEST_TIMEOUT"
        await trickling


async def test_chunk_extensions_without_an_end_are_no_body(
    impatient: RawServer, keys: Keys
) -> None:
    async with impatient.client() as client:
        await client.send(with_body(keys, "Transfer-Encoding: chunked", body=b"1;"))
        trickling = asyncio.create_task(client.trickle(b"x" * 4000, every=0.01))
        (answer,) = parse(await client.rest())
        assert answer.code == "REQUEST_TIMEOUT"
        await trickling


async def test_a_long_upload_that_makes_progress_is_taken(settings: Settings, keys: Keys) -> None:
    # Each piece gives five seconds more; all of them take longer than the timeout.
    server = ServerSettings(body_timeout=3.0, min_rate=200)
    async with (
        raw_server(replace(settings, server=server)) as running,
        running.client() as client,
    ):
        await client.send(with_body(keys, "Content-Length: 5015", body=b'{"reason": "x"}'))
        for _ in range(5):
            await asyncio.sleep(0.8)
            await client.send(b" " * 1000)
        assert (await client.answer()).status == 200


async def test_a_client_that_takes_no_answer_is_cut_off(
    impatient: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as sock, no_error_logged(caplog) as events:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", impatient.port))
        document = request(f"GET {PREFIX}/openapi.json HTTP/1.1")
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(sock, document * 200))
        await impatient.until_connections(1)
        await impatient.until_connections(0)
        await asyncio.wait((sending,))
        assert sending.exception() is None or isinstance(sending.exception(), OSError)
    assert [event for event in events if event["event"] == "answer_not_taken"]


async def test_a_slow_client_gets_all_of_an_answer_after_which_the_connection_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_FLUSH_SECONDS", 0.1)
    loop = asyncio.get_running_loop()
    async with raw_server(settings) as running:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", running.port))
            await running.until_connections(1)
            # A small buffer, so that the kernel does not take the answer at once.
            for served in running.connections():
                served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            document = request(f"GET {PREFIX}/openapi.json HTTP/1.1", "Connection: close")
            await loop.sock_sendall(sock, document)
            received = bytearray()
            while data := await loop.sock_recv(sock, 1024):
                received += data
                await asyncio.sleep(0.02)  # the client's pace
    (answer,) = parse(bytes(received))
    assert len(answer.body) == int(answer.headers["content-length"])


async def test_many_half_open_connections_leave_room_for_others(impatient: RawServer) -> None:
    async with asyncio.TaskGroup() as group:
        halves = [
            group.create_task(impatient.send(b"GET /health HTTP/1.1\r\nX: ")) for _ in range(200)
        ]
        (answer,) = await impatient.send(request("GET /health HTTP/1.1", "Connection: close"))
        assert answer.status == 200
    assert {each.result()[0].status for each in halves} == {408}
    await impatient.until_connections(0)
