"""The request's place in a trace: taken from `traceparent`, or begun here.

A stream has no span of its own: it lasts as long as somebody watches, and the call
to the coordinator that feeds all who do has one.
"""

from aiohttp import web
from aiohttp.typedefs import Handler

from app.api.app_keys import REQUEST_ID, TRACER
from app.api.endpoint import is_stream, method_of, route_of
from app.api.envelope import ERROR_CODE
from app.api.every_request import ASKED, unrecorded_span
from app.telemetry import trace_context
from app.telemetry.trace_context import TRACEPARENT, TraceContext
from app.telemetry.tracing import SpanKind


@web.middleware
async def continue_trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Handle the request as a part of its trace; a `traceparent` that is not valid is replaced."""
    tracer = request.app[TRACER]
    parent = TraceContext.of(request.headers.getall(TRACEPARENT, ()))
    if is_stream(request.match_info.handler):
        trace_context.enter(parent or tracer.new_trace())
        return await handler(request)
    if not tracer.records:
        asked = request.get(ASKED)
        trace_context.enter(unrecorded_span(tracer, parent) if asked is None else asked.span)
        return await handler(request)
    method, route = method_of(request), route_of(request)
    attributes = {
        "http.request.method": method,
        "http.route": route,
        "url.scheme": request.scheme,
        "scaimind.request_id": request[REQUEST_ID],
    }
    with tracer.span(
        f"{method} {route}", SpanKind.SERVER, parent=parent, attributes=attributes
    ) as span:
        trace_context.enter(span.context)
        response = await handler(request)
        span.set({"http.response.status_code": response.status})
        if response.status >= 500:
            span.fail(response.get(ERROR_CODE, str(response.status)))
        return response
