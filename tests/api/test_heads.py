"""Heads of answers: those that are written in one piece say what aiohttp's do."""

from collections.abc import AsyncIterator
from dataclasses import replace
from email.utils import parsedate_to_datetime

import pytest

from app.gateway.settings import Settings
from tests.api.raw_server import RawServer, raw_server, request

PIPELINED = 3


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[RawServer]:
    given = replace(settings, server=replace(settings.server, hsts_max_age=60))
    async with raw_server(given) as server:
        yield server


async def test_an_answer_says_the_same_whoever_writes_it(server: RawServer) -> None:
    async with server.client() as client:
        await client.send(request("GET /health HTTP/1.1", "X-Request-ID: r"))
        whole = await client.answer()
        # Of a connection that is to be closed aiohttp writes the answer.
        await client.send(request("GET /health HTTP/1.1", "X-Request-ID: r", "Connection: close"))
        other = await client.answer()
        assert await client.rest() == b""
    assert whole.status == other.status == 200
    assert whole.body == other.body
    assert other.headers.pop("connection") == "close"
    for answer in (whole, other):
        assert parsedate_to_datetime(answer.headers.pop("date")).tzinfo is not None
    assert whole.headers == other.headers
    assert whole.headers["strict-transport-security"] == "max-age=60"
    assert whole.headers["content-length"] == str(len(whole.body))


async def test_answers_of_requests_that_come_together_follow_each_other(
    server: RawServer,
) -> None:
    requests = [
        request("GET /health HTTP/1.1", f"X-Request-ID: r{number}") for number in range(PIPELINED)
    ]
    async with server.client() as client:
        await client.send(b"".join(requests))
        answers = [await client.answer() for _ in requests]
    assert [each.headers["x-request-id"] for each in answers] == ["r0", "r1", "r2"]
    assert len({each.body for each in answers}) == 1


async def test_head_has_the_length_and_no_body(server: RawServer) -> None:
    async with server.client() as client:
        await client.send(request("HEAD /health HTTP/1.1") + request("GET /health HTTP/1.1"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        whole = await client.answer()
    assert whole.status == 200
    assert f"\r\nContent-Length: {len(whole.body)}\r\n".encode() in head
