"""What is taken for a `traceparent`, by the examples and the rules of W3C Trace Context."""

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.telemetry import trace_context
from app.telemetry.trace_context import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "text",
    [
        PARENT,
        f"00-{TRACE}-{SPAN}-00",
        f"01-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
    ],
)
def test_a_valid_one_is_taken(text: str) -> None:
    found = TraceContext.of([text])
    assert found is not None
    assert (found.trace_id, found.span_id) == (TRACE, SPAN)
    assert str(found) == f"00-{TRACE}-{SPAN}-{text[53:55]}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        PARENT.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0x",
        f"{PARENT}-",
        f"{PARENT}-more",
        f"{PARENT}\n",
        f" {PARENT}",
        f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 1000}",
        PARENT.replace("4", "٤"),
    ],
)
def test_another_one_is_not(text: str) -> None:
    with pytest.raises(ValueError, match="traceparent"):
        TraceContext.parse(text)
    assert TraceContext.of([text]) is None


def test_one_of_several_is_not_taken() -> None:
    assert TraceContext.of([]) is None
    assert TraceContext.of([PARENT, PARENT]) is None


@given(st.text(max_size=60) | st.from_regex(r"[0-9a-f-]{50,60}", fullmatch=True))
def test_whatever_is_taken_is_written_as_it_may_be(text: str) -> None:
    found = TraceContext.of([text])
    if found is not None:
        assert TraceContext.parse(str(found)) == found


def test_flags_without_a_meaning_are_dropped() -> None:
    assert str(TraceContext.parse(f"00-{TRACE}-{SPAN}-ff")).endswith("-03")


def test_what_is_made_is_valid_and_never_the_same() -> None:
    made = [TraceContext.new() for _ in range(20)]
    assert len({each.trace_id for each in made}) == 20
    for each in made:
        assert TraceContext.parse(str(each)) == each
        child = each.child()
        assert child.trace_id == each.trace_id
        assert child.span_id != each.span_id
    assert TraceContext.new(sampled=True).flags == 1


def test_a_context_names_its_trace_in_the_log() -> None:
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as events:
        trace_context.enter(TraceContext(TRACE, SPAN))
        structlog.get_logger().info("here")
    structlog.contextvars.clear_contextvars()
    assert events[0]["trace_id"] == TRACE
    assert trace_context.current() == TraceContext(TRACE, SPAN)
