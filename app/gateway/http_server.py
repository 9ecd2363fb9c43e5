"""The HTTP server: aiohttp's, with connections of our own (`app.gateway.connection`).

aiohttp lets nobody choose the class of connections (aio-libs/aiohttp#3287), so
that `_make_server` and `_kwargs` are used here; `tests/gateway/test_internals.py`
fails when they are not needed any more.
"""

import asyncio
import gc
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict, CIMultiDictProxy

from app.api.app_keys import ANSWER_HEADERS, METRICS, SERVER_SETTINGS
from app.api.every_request import ASKED
from app.api.expectations import EXPECTATION
from app.api.headers import AnswerHeaders
from app.api.settings import ServerSettings
from app.files import descriptors
from app.gateway.admission import Admission
from app.gateway.connection import Connection, Count
from app.gateway.repeats import Repeats

_BACKLOG = 1024
#: What is kept of a body that nobody reads; twice as much may come before reading stops.
_UNREAD_BYTES = 64 * 1024
#: New objects after which Python looks for cycles among them, and how many such passes lead to
#: one over what was left by them. By default 700: with fifty requests at work each pass meets
#: objects of theirs that are in use, and those of a tenth of a second are no burden.
_COLLECT_AFTER = (5_000, 10, 10)


async def serve(app: web.Application, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; returns when every request and stream has ended."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    runner = Runner.of(app)
    await runner.setup()
    try:
        await web.SockSite(runner, listening, backlog=_BACKLOG).start()
        _relieve_collector()
        await stopping.wait()
    finally:
        await runner.cleanup()


def _relieve_collector() -> None:
    """Have the garbage collector pass over what was made for the start, and pass more seldom."""
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


class Runner(web.AppRunner):
    """Runs the application within the limits that the settings set to requests."""

    def __init__(
        self,
        app: web.Application,
        *,
        settings: ServerSettings,
        headers: AnswerHeaders,
        count: Count,
        admission: Admission,
    ) -> None:
        super().__init__(
            app,
            shutdown_timeout=settings.shutdown_timeout,
            access_log=None,  # the middleware `trace` logs requests
            max_line_size=settings.max_line_bytes,
            max_field_size=settings.max_header_bytes,
            max_headers=settings.max_headers,
            keepalive_timeout=settings.idle_timeout,
            # `app.api.content` inflates bodies, once their callers are known.
            auto_decompress=False,
            # `app.api.delivery` reads away what is left of them.
            lingering_time=0,
            read_bufsize=_UNREAD_BYTES,
        )
        self._settings = settings
        self._headers = headers
        self._count = count
        self._admission = admission
        self._repeats = Repeats()

    @classmethod
    def of(cls, app: web.Application) -> "Runner":
        """Make the runner of an application that `create_app` has made."""
        settings, metrics = app[SERVER_SETTINGS], app[METRICS]

        def count(status: int) -> None:
            metrics.requests.labels(method="OTHER", route="unreadable", status=str(status)).inc()

        admission = Admission(
            most=settings.max_connections,
            descriptors=descriptors.limit(),
            refused=metrics.connections_refused,
            clock=time.monotonic,
        )
        return cls(
            app, settings=settings, headers=app[ANSWER_HEADERS], count=count, admission=admission
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=_without_expectations(made.request_factory),
            options=made._kwargs,
            connection=self._connection,
        )

    def _connection(self, server: web.Server, **options: Any) -> Connection:
        return Connection(
            server,
            settings=self._settings,
            headers=self._headers,
            count=self._count,
            admission=self._admission,
            repeats=self._repeats,
            **options,
        )


class _Server(web.Server):
    """Makes the protocol of each connection; aiohttp has no hook for that."""

    def __init__(
        self,
        handler: Any,
        *,
        request_factory: Any,
        options: dict[str, Any],
        connection: Callable[..., Connection],
    ) -> None:
        super().__init__(handler, request_factory=request_factory, **options)
        self._connection = connection

    def __call__(self) -> RequestHandler:
        return self._connection(self, loop=self._loop, **self._kwargs)


def _without_expectations(
    factory: Callable[..., web.BaseRequest],
) -> Callable[..., web.BaseRequest]:
    """Have requests made without their `Expect` header, which is kept beside them.

    aiohttp would send `100 Continue`, or refuse other values, before the
    middlewares run.
    """

    def make(
        message: RawRequestMessage, payload: StreamReader, protocol: Connection, *others: Any
    ) -> web.BaseRequest:
        headers, expected = message.headers, ""
        if hdrs.EXPECT in headers:
            without = CIMultiDict(headers)
            expected = ", ".join(without.popall(hdrs.EXPECT))
            message = message._replace(headers=CIMultiDictProxy(without))
        request = factory(message, payload, protocol, *others)
        request[EXPECTATION] = expected
        asked = protocol.take_asked()
        if asked is not None:
            request[ASKED] = asked
        return request

    return make
