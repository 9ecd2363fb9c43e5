"""The HTTP server: aiohttp's, but what it cannot parse gets our own answer and one log line.

aiohttp would answer with a part of the request, and log it with a traceback:
headers, and so tokens, included.
"""

import asyncio
import secrets
import signal
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from app.api.app_keys import ANSWER_HEADERS, METRICS, SERVER_SETTINGS
from app.api.envelope import failure
from app.api.headers import AnswerHeaders
from app.api.settings import ServerSettings
from app.errors import (
    HEADERS_TOO_LARGE,
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    URI_TOO_LONG,
    ApiError,
    ErrorKind,
)

log = structlog.get_logger()

#: Counts a request that could not be read, by the status that it was answered with.
Count = Callable[[int], None]

_BACKLOG = 1024


async def serve(app: web.Application, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; returns when every request and stream has ended."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    runner = Runner.of(app)
    await runner.setup()
    try:
        await web.SockSite(runner, listening, backlog=_BACKLOG).start()
        await stopping.wait()
    finally:
        await runner.cleanup()


class Runner(web.AppRunner):
    """Runs the application within the limits that the settings set to requests."""

    def __init__(
        self,
        app: web.Application,
        *,
        settings: ServerSettings,
        headers: AnswerHeaders,
        count: Count,
    ) -> None:
        super().__init__(
            app,
            shutdown_timeout=settings.shutdown_timeout,
            access_log=None,  # the middleware `trace` logs requests
            max_line_size=settings.max_line_bytes,
            max_field_size=settings.max_header_bytes,
            max_headers=settings.max_headers,
        )
        self._settings = settings
        self._headers = headers
        self._count = count

    @classmethod
    def of(cls, app: web.Application) -> "Runner":
        """Make the runner of an application that `create_app` has made."""

        def count(status: int) -> None:
            app[METRICS].requests.labels(
                method="OTHER", route="unreadable", status=str(status)
            ).inc()

        return cls(app, settings=app[SERVER_SETTINGS], headers=app[ANSWER_HEADERS], count=count)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            options=made._kwargs,
            connection=self._connection,
        )

    def _connection(self, server: web.Server, **options: Any) -> "_Connection":
        return _Connection(server, self._settings, self._headers, self._count, **options)


class _Server(web.Server):
    def __init__(
        self,
        handler: Any,
        *,
        request_factory: Any,
        options: dict[str, Any],
        connection: Callable[..., "_Connection"],
    ) -> None:
        super().__init__(handler, request_factory=request_factory, **options)
        self._connection = connection

    def __call__(self) -> RequestHandler:
        return self._connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ("_answer_headers", "_count", "_settings")

    def __init__(
        self,
        server: web.Server,
        settings: ServerSettings,
        headers: AnswerHeaders,
        count: Count,
        **options: Any,
    ) -> None:
        super().__init__(server, **options)
        self._settings = settings
        self._answer_headers = headers
        self._count = count

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, or what failed outside of the middlewares."""
        request_id = f"req_{secrets.token_hex(12)}"
        if status == HTTPStatus.BAD_REQUEST:
            error = self._told(exc)
            log.info(
                "request_unreadable",
                request_id=request_id,
                code=error.kind.code,
                # Its text has parts of the request.
                reason=type(exc).__name__,
                remote=request.remote,
            )
        else:
            error = ApiError(INTERNAL_ERROR)
            log.error("request_failed", request_id=request_id, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        self._count(error.kind.status)
        response = failure(error, request_id=request_id)
        self._answer_headers.complete(
            response.headers, asked=request.headers, request_id=request_id
        )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what fails beside a request: in a line if the client caused it."""
        error = kw.get("exc_info")
        if isinstance(error, HttpProcessingError | web.RequestPayloadError | ClientPayloadError):
            log.info("request_unreadable", reason=type(error).__name__)
        else:
            super().log_exception(*args, **kw)

    def _told(self, exc: BaseException | None) -> ApiError:
        limits = self._settings
        if isinstance(exc, LineTooLong):
            # The message names only the limit, not the text that exceeded it.
            if exc.args[1] == limits.max_line_bytes:
                return _too_long(URI_TOO_LONG, "request line", limits.max_line_bytes)
            return _too_long(
                HEADERS_TOO_LARGE, "request has a header that", limits.max_header_bytes
            )
        if isinstance(exc, HttpProcessingError) and exc.message == "Too many headers received":
            return ApiError(
                HEADERS_TOO_LARGE, f"The request has more than {limits.max_headers} headers."
            )
        if isinstance(exc, BadHttpMethod):
            return ApiError(MALFORMED_REQUEST, "The request is not HTTP/1.1.")
        return ApiError(MALFORMED_REQUEST, "The request is not valid HTTP/1.1.")


def _too_long(kind: ErrorKind, what: str, limit: int) -> ApiError:
    return ApiError(kind, f"The {what} is longer than {limit} bytes.")
