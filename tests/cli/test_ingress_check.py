"""Who has compressed a stream: the gateway, which may, or a proxy before it."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.cli.ingress_check import Finding, check_ingress
from app.hub.coding.gzip_stream import HEADER, GzipStream

EVENT = b"event: bookmark\nid: e1:0\ndata: {}\n\n"
#: What Go's compress/gzip begins with, and so Caddy and Traefik, and what zlib does, and so nginx.
GO = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
ZLIB = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"


@pytest.mark.parametrize(
    ("header", "findings"),
    [
        pytest.param(HEADER, [], id="the gateway"),
        pytest.param(GO, ["ingress_compresses"], id="Go"),
        pytest.param(ZLIB, ["ingress_compresses"], id="zlib"),
    ],
)
async def test_a_proxy_that_compresses_is_told_from_the_gateway(
    header: bytes, findings: list[Finding]
) -> None:
    async def stream(_: web.Request) -> web.Response:
        return web.Response(
            body=header + GzipStream().compress(EVENT),
            content_type="text/event-stream",
            headers={"Content-Encoding": "gzip"},
        )

    app = web.Application()
    app.router.add_get("/v1/modules/scaimind/jobs/{job_id}/logs", stream)
    async with TestServer(app, host="127.0.0.1") as server:
        url = str(server.make_url("/"))
        assert await check_ingress(url, key="k", job_id="job-1", patience=60.0) == findings


async def test_the_gateways_header_may_come_in_pieces() -> None:
    """As a network may cut it: nothing says that the first read has all of it."""
    body = HEADER + GzipStream().compress(EVENT)

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
        )
        await answer.prepare(request)
        for at in range(len(HEADER)):
            await answer.write(body[at : at + 1])
            # The client reads on the same loop. Bytes that come to it together fail nothing.
            for _ in range(20):
                await asyncio.sleep(0)
        await answer.write(body[len(HEADER) :])
        return answer

    app = web.Application()
    app.router.add_get("/v1/modules/scaimind/jobs/{job_id}/logs", stream)
    async with TestServer(app, host="127.0.0.1") as server:
        url = str(server.make_url("/"))
        assert await check_ingress(url, key="k", job_id="job-1", patience=60.0) == []
