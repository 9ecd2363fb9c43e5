"""Spans sent to an OpenTelemetry collector; imported only where that is configured.

The SDK reads the rest of the `OTEL_*` variables of the process itself: resource,
sampler, limits, headers, certificates, batches. Spans are sent by a thread of its
own, and dropped where the collector does not keep up.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import SpanKind as OtelSpanKind
from typing_extensions import override

from app import __version__
from app.shortening import quoted
from app.telemetry.trace_context import TraceContext
from app.telemetry.tracing import Attributes, Span, SpanKind, Tracer

_KINDS = {SpanKind.SERVER: OtelSpanKind.SERVER, SpanKind.CLIENT: OtelSpanKind.CLIENT}
#: The specification's default comes first.
_HTTP, _GRPC = "http/protobuf", "grpc"
#: Seconds that the last spans may take at the end.
_PATIENCE = 3.0


class OtlpTracer(Tracer):
    """Records spans and sends them. Raises `ValueError` for a variable that cannot be used."""

    def __init__(self, environ: Mapping[str, str], *, service_name: str) -> None:
        self.protocol = _protocol(environ)
        resource: dict[str, str] = {SERVICE_VERSION: __version__}
        if not environ.get("OTEL_SERVICE_NAME"):
            resource[SERVICE_NAME] = service_name
        self._provider = TracerProvider(resource=Resource.create(resource), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(self.protocol)))
        self._tracer = self._provider.get_tracer("scaimind", __version__)

    @property
    @override
    def records(self) -> bool:
        return True

    @override
    def new_trace(self) -> TraceContext:
        begun = TraceContext.new()
        asked = self._provider.sampler.should_sample(None, int(begun.trace_id, 16), "trace")
        sampled = asked.decision is Decision.RECORD_AND_SAMPLE
        return TraceContext(begun.trace_id, begun.span_id, int(sampled))

    @contextmanager
    @override
    def span(
        self, name: str, kind: SpanKind, *, parent: TraceContext | None, attributes: Attributes
    ) -> Iterator[Span]:
        # Not made the current span of this context: that would leak out of async generators.
        made = self._tracer.start_span(
            name, context=_remote(parent), kind=_KINDS[kind], attributes=dict(attributes)
        )
        span = _OtlpSpan(made)
        try:
            yield span
        except Exception as error:
            if not span.failed:
                span.fail(type(error).__name__)
            raise
        finally:
            made.end()

    @override
    def close(self) -> None:
        # A collector that is away must not hold up the process's end.
        thread = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        thread.start()
        thread.join(_PATIENCE)


class _OtlpSpan(Span):
    def __init__(self, span: Any) -> None:
        self._span = span
        self.failed = False
        own = span.get_span_context()
        self._context = TraceContext(
            f"{own.trace_id:032x}", f"{own.span_id:016x}", int(own.trace_flags)
        )

    @property
    @override
    def context(self) -> TraceContext:
        return self._context

    @override
    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    @override
    def fail(self, problem: str) -> None:
        self.failed = True
        self._span.set_status(Status(StatusCode.ERROR, problem))


def _remote(parent: TraceContext | None) -> Context:
    """Return a context whose span is `parent`; an empty one without it."""
    if parent is None:
        return Context()
    return set_span_in_context(
        NonRecordingSpan(
            SpanContext(
                trace_id=int(parent.trace_id, 16),
                span_id=int(parent.span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(parent.flags),
            )
        ),
        Context(),
    )


def _protocol(environ: Mapping[str, str]) -> str:
    """Return the protocol that is asked for. Raises `ValueError` for one that is not spoken."""
    name = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
    if not environ.get(name):
        name = "OTEL_EXPORTER_OTLP_PROTOCOL"
    protocol = environ.get(name, "").strip() or _HTTP
    if protocol not in (_HTTP, _GRPC):
        raise ValueError(f"{name}={quoted(protocol)} is neither {_HTTP} nor {_GRPC}")
    return protocol


def _exporter(protocol: str) -> Any:
    if protocol == _GRPC:
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc

        return over_grpc.OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http

    return over_http.OTLPSpanExporter()
