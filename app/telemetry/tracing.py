"""Spans: what a request or a call did, and how long it took.

Nothing is recorded unless an exporter is configured by the OpenTelemetry
variables: `NoTracer` then passes traces on, and that is all.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Protocol, TypeAlias

import structlog
from typing_extensions import override

from app.shortening import shortened
from app.telemetry.trace_context import TraceContext

log = structlog.get_logger()

Attributes: TypeAlias = Mapping[str, str | int]

#: Any of these says where spans go (OpenTelemetry's SDK and OTLP environment variables).
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class SpanKind(StrEnum):
    """On which side of a call a span is."""

    SERVER = "server"
    CLIENT = "client"


class Span(Protocol):
    """A span that has not ended."""

    @property
    def context(self) -> TraceContext:
        """How others refer to it."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes, or replace them."""

    def fail(self, problem: str) -> None:
        """Mark it as failed; `problem` is a code, never a text of others."""


class Tracer(Protocol):
    """Makes spans."""

    @property
    def records(self) -> bool:
        """Whether anybody gets to see the spans."""

    def new_trace(self) -> TraceContext:
        """Begin a trace without a span of its own."""

    def span(
        self, name: str, kind: SpanKind, *, parent: TraceContext | None, attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """Make a span for what happens within; a trace of its own without a parent.

        An exception passes, and fails the span by the name of its class unless it has failed. What
        is cancelled or closed has not failed.
        """

    def close(self) -> None:
        """Send what has not been sent. Blocks, for seconds at most."""


class _UnrecordedSpan(Span):
    def __init__(self, context: TraceContext) -> None:
        self._context = context

    @property
    @override
    def context(self) -> TraceContext:
        return self._context

    @override
    def set(self, attributes: Attributes) -> None:
        return

    @override
    def fail(self, problem: str) -> None:
        return


class NoTracer(Tracer):
    """Passes traces on and records nothing. A trace that begins here is not sampled."""

    @property
    @override
    def records(self) -> bool:
        return False

    @override
    def new_trace(self) -> TraceContext:
        return TraceContext.new()

    @override
    def span(
        self, name: str, kind: SpanKind, *, parent: TraceContext | None, attributes: Attributes
    ) -> AbstractContextManager[Span]:
        span = _UnrecordedSpan(TraceContext.new() if parent is None else parent.child())
        return nullcontext(span)

    @override
    def close(self) -> None:
        return


def open_tracer(*, service_name: str) -> Tracer:
    """Make the tracer that the process's `OTEL_*` variables ask for; the caller closes it.

    What cannot be used is logged at warning, and traces are then passed on
    without being recorded: no request fails for it.
    """
    environ = os.environ
    if not _is_configured(environ):
        return NoTracer()
    try:
        # The extra `otel`: nobody else has to have it.
        from app.telemetry.otlp import OtlpTracer
    except ImportError as error:
        log.warning(
            "tracing_unavailable",
            reason=f"{error.name or 'opentelemetry'} is not installed",
            advice="Install the extra 'otel' (requirements/otel.txt), or unset OTEL_EXPORTER_*.",
        )
        return NoTracer()
    try:
        tracer = OtlpTracer(environ, service_name=service_name)
    except (OSError, ValueError) as error:
        log.warning("tracing_unavailable", reason=str(error), advice="Correct the OTEL_* variable.")
        return NoTracer()
    log.info("tracing_started", protocol=tracer.protocol)
    return tracer


def _is_configured(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        if exporter not in ("otlp", "none"):
            log.warning(
                "tracing_unavailable",
                reason=f"OTEL_TRACES_EXPORTER={shortened(exporter, 64)} is not supported",
                advice="Use otlp or none.",
            )
        return exporter == "otlp"
    return any(environ.get(name, "").strip() for name in _ENDPOINTS)
