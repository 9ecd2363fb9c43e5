"""What a stream's socket is taken over from."""

import asyncio
import ssl

import aiohttp
import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.api.takeover import take_over


async def test_a_tls_transport_is_refused() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        writer = await response.prepare(request)
        assert writer is not None
        with pytest.raises(RuntimeError) as caught:
            await take_over(request, writer)
        refused.set_result(str(caught.value))
        return response

    app = web.Application()
    app.router.add_get("/", handler)
    server = TestServer(app)
    await server.start_server(ssl=server_side)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(server.make_url("/"), ssl=client_side) as answer,
        ):
            assert await answer.read() == b""
    finally:
        await server.close()
    assert "TLS" in await refused
