"""Every call's place in its caller's trace, and what its log lines are found by."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from typing_extensions import override

from app.coordinator.service.interceptor import OPEN, Context, Handler, texts_of
from app.telemetry import trace_context
from app.telemetry.trace_context import TRACEPARENT, TraceContext
from app.telemetry.tracing import SpanKind, Tracer

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


class TraceInterceptor(grpc.aio.ServerInterceptor):
    """Binds `trace_id` and `request_id` to a call's log lines, and makes its span.

    To stand in front of the interceptor that makes the handlers coroutines. A
    `traceparent` that is not valid is replaced.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method or ""
        if handler is None or method.startswith(OPEN):
            return handler
        given = texts_of(handler_call_details.invocation_metadata)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._traced(method, given, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._traced(method, given, handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _traced(self, method: str, given: dict[str, str], behavior: Any) -> Any:
        service, _, name = method.removeprefix("/").partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        parent = TraceContext.of([given[TRACEPARENT]] if TRACEPARENT in given else [])
        request_id = given.get("x-request-id", "")

        async def call(request: Any, context: Context) -> Any:
            structlog.contextvars.clear_contextvars()
            if _REQUEST_ID.fullmatch(request_id):
                structlog.contextvars.bind_contextvars(request_id=request_id)
            with self._tracer.span(
                f"{service}/{name}", SpanKind.SERVER, parent=parent, attributes=attributes
            ) as span:
                trace_context.enter(span.context)
                try:
                    return await behavior(request, context)
                except grpc.aio.AbortError:
                    span.fail(_name_of(context.code()))
                    raise

        return call


def _name_of(code: Any) -> str:
    """Name a status code, which gRPC gives as itself or as its number."""
    for each in grpc.StatusCode:
        if code in (each, each.value[0]):
            return each.name
    return "UNKNOWN"
