"""Wraps every call to the coordinator: translates its errors, reports its outcome, traces it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeAlias

import grpc

from app.bridge.channel import SERVICE
from app.bridge.contract.breaches import ReportBreach, log_breach
from app.bridge.errors import translated_errors
from app.bridge.sent import NOTHING_ASKED, Asked
from app.errors import ApiError, BrokenContract
from app.telemetry import trace_context
from app.telemetry.trace_context import TRACEPARENT
from app.telemetry.tracing import SpanKind, Tracer

#: Told of each call once it is over: method, name of the gRPC status, and the
#: seconds that it took. They are None for a stream, which lasts as long as it is wanted.
Observe: TypeAlias = Callable[[str, str, float | None], None]


def nobody(method: str, code: str, seconds: float | None) -> None:
    """Observe nothing."""


@contextmanager
def observed(
    method: str,
    observe: Observe,
    *,
    tracer: Tracer,
    report: ReportBreach = log_breach,
    asked: Asked = NOTHING_ASKED,
    stream: bool = False,
) -> Iterator[tuple[tuple[str, str], ...]]:
    """Make a call within, under the conditions of `translated_errors`.

    The value is what the call's metadata say of its trace. Every `BrokenContract`,
    raised within or translated, is reported here.
    """
    started = perf_counter()
    # What it stays when the call is given up on this side.
    code = "CANCELLED"
    name = f"{SERVICE}/{method}"
    attributes = {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": method}
    with tracer.span(
        name, SpanKind.CLIENT, parent=trace_context.current(), attributes=attributes
    ) as span:
        try:
            with translated_errors(method=method, asked=asked):
                try:
                    yield ((TRACEPARENT, str(span.context)),)
                except grpc.aio.AioRpcError as error:
                    code = error.code().name
                    raise
                except ApiError:
                    code = "DATA_LOSS"
                    raise
            code = "OK"
        except BrokenContract as breach:
            code = "DATA_LOSS"
            report(method, breach)
            raise
        finally:
            span.set({"rpc.grpc.status_code": grpc.StatusCode[code].value[0]})
            if code not in ("OK", "CANCELLED"):
                span.fail(code)
            observe(method, code, None if stream else perf_counter() - started)
