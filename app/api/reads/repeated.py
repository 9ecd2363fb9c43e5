"""A request that comes again, byte by byte but for its id, and is answered beside the HTTP parser.

Known of it is what its bytes say, and nothing else. Whether it may be answered is found
out each time, by what the middlewares use as well: the caller, the permission, the limit
of requests. Where anything is not as usual, the request has to go through them.
"""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Self

import structlog
from aiohttp import HttpVersion11, hdrs, web

from app.api.access import Access, access_of
from app.api.app_keys import ANSWER_HEADERS, AUTHENTICATOR, METRICS, SHARED_READS, TRACER
from app.api.delivery import SMALL
from app.api.endpoint import action_of, route_of
from app.api.every_request import (
    CLIENT_LEFT,
    Asked,
    has_turn,
    id_of_request,
    record,
    take_turn,
    unrecorded_span,
)
from app.api.expectations import EXPECTATION
from app.api.headers import REQUEST_ID_HEADER
from app.api.reads.job_versions import is_current, known_tags
from app.api.reads.shared import SHARED_WORK, SharedAnswer, question_of
from app.caller import Caller
from app.telemetry import trace_context
from app.telemetry.trace_context import TRACEPARENT, TraceContext

_CONTENT_TYPE, _ETAG = str(hdrs.CONTENT_TYPE), str(hdrs.ETAG)


class Repeated:
    """What the bytes of a request say, that was answered by a shared read."""

    __slots__ = (
        "_access",
        "_app",
        "_authorization",
        "_given_id",
        "_headers",
        "_known",
        "_parent",
        "_path",
        "_raw_path",
        "_route",
        "_work",
    )

    def __init__(self, request: web.Request) -> None:
        headers = request.headers
        self._app = request.app
        self._access: Access = access_of(request.match_info.handler)
        self._authorization = headers.getall(hdrs.AUTHORIZATION, ())
        self._given_id = headers.get(REQUEST_ID_HEADER, "")
        self._headers = headers
        self._known = known_tags(request)
        self._parent = TraceContext.of(headers.getall(TRACEPARENT, ()))
        self._path, self._raw_path = request.path, request.raw_path
        self._route = route_of(request)
        self._work = request[SHARED_WORK]

    @classmethod
    def of(cls, request: web.BaseRequest, response: web.StreamResponse) -> Self | None:
        """Return what is known of a request that was answered so; None if it is not one that can
        be answered here when it comes again.
        """
        if (
            isinstance(request, web.Request)
            and SHARED_WORK in request
            and request.method == hdrs.METH_GET
            and request.version == HttpVersion11
            and len(request.headers.getall(REQUEST_ID_HEADER, ())) <= 1
            and response.status in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED)
            and response.keep_alive
            and (response.content_length or 0) <= SMALL
            and not request.get(EXPECTATION)
            and action_of(request.match_info.handler) is None
            and not request.app[TRACER].records
        ):
            return cls(request)
        return None

    def asked(self, remote: str | None, own_id: str | None) -> Asked:
        """Note that the request has come once more, now, and from where.

        `own_id` is the id that it brought in place of the one that is known, if it did.
        """
        span = unrecorded_span(self._app[TRACER], self._parent)
        request_id = id_of_request(self._given_id if own_id is None else own_id)
        return Asked(request_id, span, perf_counter(), remote)

    def answer(self, asked: Asked, transport: asyncio.Transport | None) -> bool:
        """Answer the request if that can be done at once, and record it; else change nothing.

        Without a transport the client has gone meanwhile.
        """
        if transport is not None and transport.get_write_buffer_size():
            return False  # One who takes nothing may wait, but not for ever.
        caller = self._admitted()
        if caller is None:
            return False
        found: SharedAnswer | None = self._app[SHARED_READS].at_hand(
            *question_of(caller, self._raw_path)
        )
        if found is None:
            return False
        is_known = is_current(self._known, found.tag)
        status = HTTPStatus.NOT_MODIFIED if is_known else HTTPStatus.OK
        try:
            answer = self._written(found, status, asked.request_id)
        except Exception:  # the middlewares meet it again, and report it
            return False
        if answer is None or take_turn(self._app, caller):
            return False
        if transport is not None and not transport.is_closing():
            transport.write(answer)
        self._record(asked, caller, int(status))
        return True

    def _written(self, found: SharedAnswer, status: HTTPStatus, request_id: str) -> bytes | None:
        """Return an answer as it is sent; None if it is not one that can be written at once."""
        own = {} if found.tag is None else {_ETAG: found.tag}
        body = b""
        if status == HTTPStatus.OK:
            body = found.body
            own[_CONTENT_TYPE] = "application/json"
        head = self._app[ANSWER_HEADERS].head(
            status,
            status.phrase,
            own,
            length=len(body) if status == HTTPStatus.OK else None,
            asked=self._headers,
            request_id=request_id,
        )
        return None if head is None or len(body) > SMALL else head + body

    def left(self, asked: Asked) -> None:
        """Record that the client has gone before there was an answer."""
        self._record(asked, self._admitted(), CLIENT_LEFT)

    def begin(self, asked: Asked, then: Callable[[], None]) -> bool:
        """Have what answers the request read, or wait for those who do; `then` is called once it
        was read, or could not be. False if the caller may not ask, or not now.
        """
        caller = self._admitted(request_id=asked.request_id)
        if caller is None or not has_turn(self._app, caller):
            return False
        copy_context().run(self._read, asked, caller, then)
        return True

    def _admitted(self, *, request_id: str | None = None) -> Caller | None:
        """Return the caller, if they are known without asking anybody and may read this."""
        caller = self._app[AUTHENTICATOR].at_hand(self._authorization, request_id=request_id)
        if caller is None or not self._access.permits(caller.permissions):
            return None
        return caller

    def _read(self, asked: Asked, caller: Caller, then: Callable[[], None]) -> None:
        """Begin the read in the context of the request, as the middlewares make it."""
        structlog.contextvars.bind_contextvars(**asked.context(caller))
        trace_context.enter(asked.span)
        question = question_of(caller, self._raw_path)
        read = self._app[SHARED_READS].read(*question, partial(self._work, caller))
        asked.read, asked.question = read, question
        read.add_done_callback(lambda _: then())

    def _record(self, asked: Asked, caller: Caller | None, status: int) -> None:
        record(
            self._app[METRICS],
            method=hdrs.METH_GET,
            route=self._route,
            path=self._path,
            status=status,
            code=None,
            seconds=perf_counter() - asked.came_at,
            is_stream=False,
            remote=asked.remote,
            **asked.context(caller),
        )
