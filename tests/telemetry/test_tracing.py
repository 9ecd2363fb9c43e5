"""When spans are recorded: where the OpenTelemetry variables ask for it, and not otherwise."""

import subprocess
import sys
from typing import Any

import pytest
import structlog

from app.telemetry import tracing
from app.telemetry.trace_context import TraceContext
from app.telemetry.tracing import NoTracer, SpanKind, open_tracer

PARENT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENDPOINT, "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


def opened() -> tuple[tracing.Tracer, list[Any]]:
    with structlog.testing.capture_logs() as events:
        tracer = open_tracer(service_name="test")
    return tracer, events


def test_a_trace_is_passed_on_without_being_recorded() -> None:
    with NoTracer().span("name", SpanKind.CLIENT, parent=PARENT, attributes={}) as span:
        span.set({"a": 1})
        span.fail("CODE")
    assert (span.context.trace_id, span.context.flags) == (PARENT.trace_id, 1)
    assert span.context.span_id != PARENT.span_id


def test_a_trace_that_begins_here_is_not_sampled() -> None:
    with NoTracer().span("name", SpanKind.SERVER, parent=None, attributes={}) as span:
        assert span.context.flags == 0
    assert NoTracer().new_trace().flags == 0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {ENDPOINT: ""},
        {ENDPOINT: "http://localhost:4318", "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: "http://localhost:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_it_is_off_unless_it_is_configured(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    tracer, events = opened()
    assert isinstance(tracer, NoTracer)
    assert events == []


def test_opentelemetry_is_not_imported_unless_it_is_configured() -> None:
    program = (
        "import sys, app.gateway.run, app.coordinator.server\n"
        "from app.telemetry.tracing import open_tracer\n"
        "open_tracer(service_name='x')\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_what_is_not_installed_is_said_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://localhost:4318")
    monkeypatch.setitem(sys.modules, "app.telemetry.otlp", None)
    tracer, (event,) = opened()
    assert isinstance(tracer, NoTracer)
    assert (event["event"], event["log_level"]) == ("tracing_unavailable", "warning")
    assert "otel" in event["advice"]


def test_an_exporter_that_is_not_ours_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    tracer, (event,) = opened()
    assert isinstance(tracer, NoTracer)
    assert "zipkin" in event["reason"]


def test_a_protocol_that_is_not_spoken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry (the extra otel) is missing")
    monkeypatch.setenv(ENDPOINT, "http://localhost:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    tracer, (event,) = opened()
    assert isinstance(tracer, NoTracer)
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in event["reason"]
