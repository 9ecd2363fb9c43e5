"""Wraps every call to the coordinator: translates its errors, reports its outcome, traces it."""

from collections.abc import Callable
from time import perf_counter
from typing import TypeAlias

import grpc

from app.bridge.channel import SERVICE
from app.bridge.contract.breaches import ReportBreach, log_breach
from app.bridge.errors import translation_of
from app.bridge.sent import NOTHING_ASKED, Asked
from app.errors import ApiError, BrokenContract
from app.telemetry import trace_context
from app.telemetry.trace_context import TRACEPARENT
from app.telemetry.tracing import Span, SpanKind, Tracer

#: Told of each call once it is over: method, name of the gRPC status, and the
#: seconds that it took. They are None for a stream, which lasts as long as it is wanted.
Observe: TypeAlias = Callable[[str, str, float | None], None]


def nobody(method: str, code: str, seconds: float | None) -> None:
    """Observe nothing."""


class ObservedCall:
    """A call that is made within, under the conditions of `translated_errors`.

    Entering it returns what the call's metadata say of its trace. Every `BrokenContract`,
    raised within or translated, is reported. Not a generator: it goes around every call.
    """

    __slots__ = (
        "_asked",
        "_method",
        "_observe",
        "_recording",
        "_report",
        "_seconds",
        "_span",
        "_started",
        "_stream",
        "_tracer",
    )

    def __init__(
        self,
        method: str,
        observe: Observe,
        *,
        tracer: Tracer,
        report: ReportBreach = log_breach,
        asked: Asked = NOTHING_ASKED,
        stream: bool = False,
    ) -> None:
        self._method = method
        self._observe = observe
        self._tracer = tracer
        self._report = report
        self._asked = asked
        self._stream = stream
        self._span: Span | None = None
        #: How long the answer took, where it is read afterwards.
        self._seconds: float | None = None

    def __enter__(self) -> tuple[tuple[str, str], ...]:
        """Begin the call; returns its metadata."""
        self._started = perf_counter()
        parent = trace_context.current()
        if self._tracer.records:
            attributes = {
                "rpc.system": "grpc",
                "rpc.service": SERVICE,
                "rpc.method": self._method,
            }
            self._recording = self._tracer.span(
                f"{SERVICE}/{self._method}", SpanKind.CLIENT, parent=parent, attributes=attributes
            )
            self._span = self._recording.__enter__()
            context = self._span.context
        else:
            context = self._tracer.new_trace() if parent is None else parent.child()
        return ((TRACEPARENT, str(context)),)

    def answered(self) -> None:
        """Note that the answer is there: what is done with it takes no time of the call."""
        self._seconds = perf_counter() - self._started

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, where: object
    ) -> None:
        """End the call. Raises what its error is translated to."""
        if error is None:
            self._end("OK", None)
            return
        # What it stays when the call is given up on this side.
        code = "CANCELLED"
        if isinstance(error, grpc.aio.AioRpcError):
            code = error.code().name
        elif isinstance(error, ApiError):
            code = "DATA_LOSS"
        told = translation_of(error, method=self._method, asked=self._asked) or error
        if isinstance(told, BrokenContract):
            code = "DATA_LOSS"
            self._report(self._method, told)
        self._end(code, told)
        if told is not error:
            raise told from None

    def _end(self, code: str, error: BaseException | None) -> None:
        if self._span is not None:
            self._span.set({"rpc.grpc.status_code": grpc.StatusCode[code].value[0]})
            if code not in ("OK", "CANCELLED"):
                self._span.fail(code)
            # A generator sets an error's traceback to what it is given.
            kind, where = (type(error), error.__traceback__) if error else (None, None)
            self._recording.__exit__(kind, error, where)
        seconds = None
        if not self._stream:
            seconds = self._seconds or perf_counter() - self._started
        self._observe(self._method, code, seconds)
