"""What every request goes through, from the outside in.

`deliver`, `trace`, `continue_trace`, `audit`, `answer_errors`, `admit`: `install` puts them
around an application in this order. None of them looks at a request's body.
"""

import math
from time import perf_counter

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from app.api.access import PUBLIC, Access, access_of
from app.api.app_keys import (
    ANSWER_HEADERS,
    AUTHENTICATOR,
    CALLER,
    METRICS,
    REQUEST_ID,
    REVOCATIONS,
    SERVER_SETTINGS,
    TICKETS,
)
from app.api.audit import audit
from app.api.delivery import ClientLeft, deliver
from app.api.endpoint import method_of, route_of
from app.api.envelope import ERROR_CODE, failure
from app.api.every_request import ASKED, CLIENT_LEFT, id_of_request, record, take_turn
from app.api.expectations import heed_expectation
from app.api.headers import REQUEST_ID_HEADER
from app.api.reads.shared import SAFE_METHODS, forget_reads
from app.api.tracing import continue_trace
from app.caller import Caller
from app.errors import (
    AUTH_TICKET_INVALID,
    AUTHZ_PERMISSION_DENIED,
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
    PAYLOAD_TOO_LARGE,
    RATE_LIMITED,
    ROUTE_NOT_FOUND,
    ApiError,
)

log = structlog.get_logger()

_PREPARED: web.RequestKey[bool] = web.RequestKey("prepared", bool)


def install(app: web.Application) -> None:
    """Put the middlewares around the application's routes."""
    app.middlewares.extend(
        (
            deliver,
            trace,
            continue_trace,
            audit,
            answer_errors,
            admit,
        )
    )
    app.on_response_prepare.append(_complete_headers)


@web.middleware
async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Assign the request its id; log and count it when it ends."""
    asked = request.get(ASKED)
    if asked is None:
        request_id = id_of_request(request.headers.get(REQUEST_ID_HEADER, ""))
        started = perf_counter()
    else:
        request_id, started = asked.request_id, asked.came_at
    request[REQUEST_ID] = request_id
    structlog.contextvars.bind_contextvars(request_id=request_id)
    response: web.StreamResponse | None = None
    try:
        response = await handler(request)
        return response
    finally:
        _record(request, response, perf_counter() - started)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every exception into the envelope: here, and nowhere else."""
    try:
        return await handler(request)
    except ApiError as error:
        if request.get(_PREPARED):
            raise  # too late for a status; the connection ends without a proper end
        return failure(error, request_id=request[REQUEST_ID])
    except web.HTTPException as error:
        return _from_aiohttp(request, error)
    except Exception as error:
        if _client_left(request, error):
            raise ClientLeft("the client has gone") from None
        log.exception("request_failed", method=request.method, route=route_of(request))
        if request.get(_PREPARED):
            raise
        return failure(ApiError(INTERNAL_ERROR), request_id=request[REQUEST_ID])


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in who may call the route, as often as they may."""
    heed_expectation(request)
    access = _access(request)
    if access.public:
        return await handler(request)
    app = request.app
    request[CALLER] = caller = await _caller(request, access)
    structlog.contextvars.bind_contextvars(tenant_id=caller.tenant_id, user_id=caller.user_id)
    with app[REVOCATIONS].watched(caller.revocable_by):
        _limit(app, caller)
        if not access.permits(caller.permissions):
            needed = " or ".join(sorted(access.any_of))
            raise ApiError(
                AUTHZ_PERMISSION_DENIED, f"This endpoint requires the permission {needed}."
            )
        if request.method in SAFE_METHODS:
            return await handler(request)
        try:
            return await handler(request)
        finally:
            forget_reads(app, caller, access)


def _client_left(request: web.Request, error: Exception) -> bool:
    """Return whether a handler failed only since its client has gone."""
    transport = request.transport
    if transport is not None and not transport.is_closing():
        return False
    # A connection that is lost while a body is read fails with whatever the network said.
    return isinstance(error, ConnectionError) or error is request.content.exception()


def _limit(app: web.Application, caller: Caller) -> None:
    """Refuse a caller who asks too often."""
    wait = take_turn(app, caller)
    if wait:
        app[METRICS].rate_limited.inc()
        raise ApiError(RATE_LIMITED, retry_after=math.ceil(wait))


def _access(request: web.Request) -> Access:
    if request.match_info.http_exception is not None:
        return PUBLIC  # no such route, or not with this method: anyone may know
    return access_of(request.match_info.handler)


async def _caller(request: web.Request, access: Access) -> Caller:
    """Authenticate the caller by the token or, where declared, by a stream ticket."""
    authorization = request.headers.getall(hdrs.AUTHORIZATION, ())
    tickets = request.query.getall("ticket", ())
    if access.ticket is None or not tickets:
        return await request.app[AUTHENTICATOR].authenticate(
            authorization, request_id=request[REQUEST_ID]
        )
    if authorization:
        raise ApiError(
            MALFORMED_REQUEST,
            "The request has an Authorization header and a ticket. Send one of them.",
        )
    if len(tickets) > 1:
        raise ApiError(AUTH_TICKET_INVALID, "The request has several tickets. Send one.")
    return await request.app[TICKETS].redeem(
        tickets[0], access.ticket(request), request_id=request[REQUEST_ID]
    )


async def _complete_headers(request: web.Request, response: web.StreamResponse) -> None:
    request[_PREPARED] = True
    request.app[ANSWER_HEADERS].complete(
        response.headers, asked=request.headers, request_id=request[REQUEST_ID]
    )


def _from_aiohttp(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    allowed = error.headers.get(hdrs.ALLOW)
    if isinstance(error, web.HTTPNotFound):
        told = ApiError(ROUTE_NOT_FOUND)
    elif isinstance(error, web.HTTPMethodNotAllowed):
        if request.method == hdrs.METH_OPTIONS:
            # RFC 9110, 9.3.7
            preflight = request.app[ANSWER_HEADERS].preflight(
                asked=request.headers, methods=str(allowed)
            )
            headers = {hdrs.ALLOW: f"{allowed},OPTIONS", **preflight}
            return web.Response(status=204, headers=headers)
        told = ApiError(METHOD_NOT_ALLOWED, f"This endpoint supports {allowed}.")
    elif isinstance(error, web.HTTPRequestEntityTooLarge):
        limit = request.app[SERVER_SETTINGS].max_body_bytes
        told = ApiError(PAYLOAD_TOO_LARGE, f"The request body exceeds {limit} bytes.")
    elif 400 <= error.status < 500:
        told = ApiError(MALFORMED_REQUEST)
    else:
        log.error("unexpected_http_exception", status=error.status, route=route_of(request))
        told = ApiError(INTERNAL_ERROR)
    response = failure(told, request_id=request[REQUEST_ID])
    if allowed is not None:
        response.headers[hdrs.ALLOW] = allowed
    return response


def _record(request: web.Request, response: web.StreamResponse | None, seconds: float) -> None:
    status = CLIENT_LEFT if response is None else response.status
    record(
        request.app[METRICS],
        method=method_of(request),
        route=route_of(request),
        path=request.path,
        status=status,
        code=response.get(ERROR_CODE) if response is not None and status >= 400 else None,
        seconds=seconds,
        is_stream=not isinstance(response, web.Response),
        remote=request.remote,
    )
