"""What a call that is observed leaves of the errors within it."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.bridge import observed_call
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


def test_what_is_done_with_an_answer_takes_no_time_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(observed_call, "perf_counter", lambda: now)
    ends: list[tuple[str, str, float | None]] = []
    call = ObservedCall("ListJobLogs", lambda *told: ends.append(told), tracer=NoTracer())
    with call:
        now += 2
        call.answered()
        now += 60
    assert ends == [("ListJobLogs", "OK", 2.0)]
