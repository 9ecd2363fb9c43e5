"""A request that is refused costs next to nothing, and its refusal is delivered."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from app.api import bodies, content_codings
from app.gateway.settings import Settings
from tests.api.conftest import Keys
from tests.api.endpoints import PREFIX
from tests.api.raw_server import (
    SAFETY_NET,
    Client,
    RawServer,
    no_error_logged,
    parse,
    raw_server,
    request,
)

CANCEL = f"POST {PREFIX}/jobs/job-1/cancel HTTP/1.1"
JSON = "Content-Type: application/json"
MiB = 1024 * 1024


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[RawServer]:
    async with raw_server(settings) as running:
        yield running


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a request whose body is inflated or parsed."""

    def fail(*_: Any) -> Any:
        raise AssertionError("the body was touched")

    monkeypatch.setattr(content_codings.Inflater, "feed", fail)
    monkeypatch.setattr(bodies, "decode_object", fail)


def refused(keys: Keys) -> dict[str, tuple[bytes, int]]:
    """Requests up to their framing, and the status that each is refused with."""

    def head(line: str, *headers: str) -> bytes:
        return request(line, JSON, *headers)[:-2]

    admin = f"Authorization: Bearer {keys.admin}"
    return {
        "no token": (head(CANCEL), 401),
        "a bad token": (head(CANCEL, "Authorization: Bearer sgk_" + "x" * 43), 401),
        "no permission": (
            head(CANCEL, f"Authorization: Bearer {keys.by_role['tenant_viewer']}"),
            403,
        ),
        "no route": (head(f"POST {PREFIX}/nothing HTTP/1.1", admin), 404),
        "no method": (head(f"PUT {PREFIX}/jobs HTTP/1.1", admin), 405),
        "another coding": (head(CANCEL, admin, "Content-Encoding: br"), 415),
    }


KINDS = (
    "no token",
    "a bad token",
    "no permission",
    "no route",
    "no method",
    "another coding",
)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("kind", KINDS)
async def test_the_body_of_a_refused_request_is_not_touched(
    server: RawServer, keys: Keys, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    head, status = refused(keys)[kind]
    bomb = gzip.compress(bytes(200 * MiB), 1)
    coding = b"" if kind == "another coding" else b"Content-Encoding: gzip\r\n"
    with no_error_logged(caplog):
        async with server.client() as client:
            sending = asyncio.create_task(
                client.send(head + coding + b"Content-Length: %d\r\n\r\n" % len(bomb), bomb)
            )
            answer = await client.answer()
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            assert await client.rest() == b""
            # It may be in the middle of it: the connection is closed then.
            await asyncio.wait((sending,), timeout=SAFETY_NET)
            assert isinstance(sending.exception(), ConnectionError | None)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("kind", KINDS)
async def test_after_a_refusal_the_connection_goes_on_if_little_is_left_of_the_body(
    server: RawServer, keys: Keys, kind: str
) -> None:
    head, status = refused(keys)[kind]
    async with server.client() as client:
        for _ in range(2):
            await client.send(head + b"Content-Length: 50000\r\n\r\n")
            assert (await client.answer()).status == status
            await client.send(b"x" * 50_000 + request("GET /health HTTP/1.1"))
            assert (await client.answer()).status == 200


async def never_ending(client: Client) -> None:
    """Send chunks until the gateway closes the connection."""
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    with suppress(ConnectionError):
        while True:
            await client.send(chunk)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_body_without_an_end_is_left(
    server: RawServer, keys: Keys, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    head, status = refused(keys)[kind]
    with no_error_logged(caplog):
        async with server.client() as client:
            await client.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
            sending = asyncio.create_task(never_ending(client))
            assert (await client.answer()).status == status
            async with asyncio.timeout(SAFETY_NET):
                await sending
    await server.until_connections(0)


async def test_what_follows_a_refused_body_is_no_request(server: RawServer, keys: Keys) -> None:
    head, status = refused(keys)["no token"]
    smuggled = request(f"GET {PREFIX}/jobs HTTP/1.1", f"Authorization: Bearer {keys.admin}")
    answers = await server.send(head + b"Content-Length: 100000\r\n\r\n" + smuggled)
    assert [answer.status for answer in answers] == [status]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_waits_to_be_asked_gets_the_refusal_at_once(
    server: RawServer, keys: Keys, kind: str
) -> None:
    head, status = refused(keys)[kind]
    async with server.client() as client:
        await client.send(head + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")


async def test_a_client_that_waits_is_asked_once_its_body_is_wanted(
    server: RawServer, keys: Keys
) -> None:
    head = request(
        CANCEL,
        JSON,
        f"Authorization: Bearer {keys.admin}",
        "Content-Length: 15",
        "Expect: 100-Continue",
    )
    async with server.client() as client:
        for _ in range(2):
            await client.send(head)
            assert (await client.answer()).status == 100
            await client.send(b'{"reason": "x"}')
            assert (await client.answer()).status == 200


async def test_a_client_that_has_not_waited_is_not_asked(server: RawServer, keys: Keys) -> None:
    head = request(
        CANCEL,
        JSON,
        f"Authorization: Bearer {keys.admin}",
        "Content-Length: 15",
        "Expect: 100-continue",
        "Connection: close",
    )
    (answer,) = await server.send(head + b'{"reason": "x"}')
    assert answer.status == 200


async def test_a_body_that_is_too_large_is_not_asked_for(server: RawServer, keys: Keys) -> None:
    head = request(
        CANCEL,
        JSON,
        f"Authorization: Bearer {keys.admin}",
        f"Content-Length: {MiB + 1}",
        "Expect: 100-continue",
    )
    async with server.client() as client:
        await client.send(head)
        answer = await client.answer()
    assert (answer.status, answer.code) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("expected", ["x", "100-continue, x", "200-ok", "100-continue=1", '"'])
@pytest.mark.parametrize(
    "line", ["GET /health HTTP/1.1", CANCEL, "GET /nothing HTTP/1.1", f"PUT {PREFIX}/jobs HTTP/1.1"]
)
async def test_what_nobody_can_fulfil_is_refused_in_the_envelope(
    server: RawServer, line: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    with no_error_logged(caplog):
        (answer,) = await server.send(request(line, f"Expect: {expected}", "Connection: close"))
    assert (answer.status, answer.code) == (417, "EXPECTATION_FAILED")
    assert answer.headers["x-request-id"]


async def test_clients_of_http_1_0_expect_nothing(server: RawServer) -> None:
    data = await server.send(b"GET /health HTTP/1.0\r\nExpect: x\r\n\r\n")
    assert [answer.status for answer in data] == [200]


@pytest.mark.usefixtures("untouched")
async def test_others_are_served_while_refused_bodies_arrive(server: RawServer, keys: Keys) -> None:
    head, status = refused(keys)["a bad token"]
    bomb = gzip.compress(bytes(40 * MiB), 1)

    async def attack() -> int:
        async with server.client() as client:
            await client.send(
                head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
            )
            sending = asyncio.create_task(client.send(bomb))
            answer = await client.answer()
            await client.rest()
            await asyncio.wait((sending,), timeout=SAFETY_NET)
            assert isinstance(sending.exception(), ConnectionError | None)
            return answer.status

    async with asyncio.TaskGroup() as group:
        attacks = [group.create_task(attack()) for _ in range(30)]
        async with server.client() as client:
            for _ in range(20):
                await client.send(request("GET /health HTTP/1.1"))
                assert (await client.answer()).status == 200
    assert {each.result() for each in attacks} == {status}


def test_answers_are_taken_apart() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
    assert [(each.status, each.body) for each in parse(one * 2)] == [(200, b"ab")] * 2
