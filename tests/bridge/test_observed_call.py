"""What a call that is observed leaves of the errors within it."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.bridge.observed_call import ObservedCall
from app.telemetry.trace_context import TraceContext
from app.telemetry.tracing import Attributes, NoTracer, Span, SpanKind


class Recorded(NoTracer):
    """Says that it records, by a generator as the tracer of OpenTelemetry."""

    records = True

    @contextmanager
    def span(
        self, name: str, kind: SpanKind, *, parent: TraceContext | None, attributes: Attributes
    ) -> Iterator[Span]:
        with super().span(name, kind, parent=parent, attributes=attributes) as span:
            yield span


def breaks() -> None:
    raise KeyError("a field")


@pytest.mark.parametrize("tracer", [NoTracer(), Recorded()])
def test_an_error_within_keeps_its_traceback(tracer: NoTracer) -> None:
    ends: list[tuple[str, str]] = []
    with (
        pytest.raises(KeyError) as caught,
        ObservedCall("GetJob", lambda method, code, _: ends.append((method, code)), tracer=tracer),
    ):
        breaks()
    assert "breaks" in [each.name for each in traceback.extract_tb(caught.value.__traceback__)]
    assert ends == [("GetJob", "CANCELLED")]
