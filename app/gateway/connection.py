"""One connection: its time limits, and answers to what cannot be read.

aiohttp would answer what it cannot parse with a part of the request, and log
it with a traceback: headers, and so tokens, included. It has no limit for a
request's head. Its internals are used where it has no hook
(aio-libs/aiohttp#3287): `_messages`, `_waiter`, `_keepalive_handle`, `_ErrInfo`
and the texts and arguments of its errors.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import structlog
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from app.api.envelope import failure
from app.api.headers import AnswerHeaders, new_request_id
from app.api.settings import ServerSettings
from app.errors import (
    HEADERS_TOO_LARGE,
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    REQUEST_TIMEOUT,
    URI_TOO_LONG,
    ApiError,
    ErrorKind,
)
from app.gateway.admission import Admission
from app.gateway.repeating import RepeatingHandler

log = structlog.get_logger()

#: Counts a request that could not be read, by the status that it was answered with.
Count = Callable[[int], None]

#: How long a connection that is being closed may take to send its last bytes, in seconds.
_FLUSH_SECONDS = 5.0


class HeadTimeout(Exception):
    """A request's head did not arrive in time."""


class HeadTooLong(Exception):
    """More was sent than any head has that is within its limits, such as empty lines."""


class Connection(RepeatingHandler):
    """A client's connection to the HTTP server.

    Of a request's head the first byte starts the clock, and no later one
    stops it; on a new connection it runs from the start. Between requests
    aiohttp's `keepalive_timeout` bounds the silence.
    """

    __slots__ = (
        "_admission",
        "_admitted",
        "_answer_headers",
        "_count",
        "_head_bytes",
        "_head_timer",
        "_settings",
    )

    def __init__(
        self,
        server: web.Server,
        *,
        settings: ServerSettings,
        headers: AnswerHeaders,
        count: Count,
        admission: Admission,
        **options: Any,
    ) -> None:
        super().__init__(server, **options)
        self._settings = settings
        self._answer_headers = headers
        self._count = count
        self._admission = admission
        self._admitted = False
        #: What was received of an incomplete head.
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve, if there is room."""
        self._admitted = self._admission.admit(transport.get_extra_info("socket").fileno())
        if not self._admitted:
            # uvloop's transports are of no class of asyncio's.
            cast(asyncio.Transport, transport).abort()
            return
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note that the connection is over."""
        self._stop_clock()
        if self._admitted:
            self._admitted = False
            self._admission.leave()
        super().connection_lost(exc)

    def came_whole(self) -> None:
        """Stop the clock of its head."""
        super().came_whole()
        if self._head_timer is not None:
            self._stop_clock()

    def read(self, data: bytes) -> None:
        """Have the parser read it; while a head is incomplete, its time runs."""
        super().read(data)
        if not self._awaits_head():
            self._stop_clock()
            return
        self._head_bytes += len(data)
        self._stop_idle_clock()
        limits = self._settings
        if self._head_bytes > limits.max_line_bytes + limits.max_headers * limits.max_header_bytes:
            self._refuse_head(HeadTooLong())
        elif self._head_timer is None:
            self._start_clock()

    async def start(self) -> None:
        """Serve the connection's requests until it is closed."""
        transport = self.transport
        try:
            await super().start()
        finally:
            # Closing waits for the client to take what was written, however long that is.
            if transport is not None and transport.get_write_buffer_size():
                self._loop.call_later(_FLUSH_SECONDS, transport.abort)

    def _awaits_head(self) -> bool:
        if not self._request_count:
            return True
        waiter = self._waiter
        return waiter is not None and not waiter.done()

    def _start_clock(self) -> None:
        self._head_timer = self._loop.call_later(self._settings.head_timeout, self._head_is_late)

    def _stop_clock(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_idle_clock(self) -> None:
        # aiohttp starts another one behind each request.
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._keepalive_handle = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._refuse_head(HeadTimeout())
        else:
            # Browsers open connections ahead, and would take an answer for that of a request.
            self.force_close()

    def _refuse_head(self, why: Exception) -> None:
        """Have the connection answer as if the parser had failed, and end."""
        self._stop_clock()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            refused = _ErrInfo(status=HTTPStatus.BAD_REQUEST, exc=why, message="")
            self._messages.append((refused, EMPTY_PAYLOAD))
            waiter.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, or what failed outside of the middlewares."""
        if isinstance(exc, ConnectionError):
            raise exc  # nobody is left to be answered
        request_id = new_request_id()
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
        if isinstance(exc, HeadTimeout):
            return ApiError(REQUEST_TIMEOUT, "The request's head did not arrive in time.")
        if isinstance(exc, HeadTooLong):
            return ApiError(HEADERS_TOO_LARGE, "The request's head is too long.")
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
