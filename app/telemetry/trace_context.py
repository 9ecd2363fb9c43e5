"""Where a request stands in a distributed trace (W3C Trace Context, https://www.w3.org/TR/trace-context/).

`traceparent` alone is taken and passed on. `tracestate` is not, as the
specification allows: it is text of others, and gRPC's 8 KiB of metadata have to
hold two tokens.
"""

import random
import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

import structlog

#: Name of the HTTP header and of gRPC's metadata.
TRACEPARENT = "traceparent"

#: Characters of version 00, with which every later version begins.
_LENGTH = 55
_MAX_LENGTH = 256
_FORM = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})"
    r"-(?!0{32})(?P<trace_id>[0-9a-f]{32})"
    r"-(?!0{16})(?P<span_id>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})"
)
_SAMPLED = 0x01
#: The flags that have a meaning: sampled, and that the trace id is random.
_KNOWN_FLAGS = 0x03


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span, as others refer to it."""

    #: 32 hexadecimal digits, not all of them zero.
    trace_id: str
    #: 16 hexadecimal digits, not all of them zero.
    span_id: str
    flags: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a `traceparent`. Raises `ValueError` for what the specification refuses."""
        if not _LENGTH <= len(text) <= _MAX_LENGTH:
            raise ValueError("a traceparent of an unknown length")
        match = _FORM.match(text)
        if match is None:
            raise ValueError("not a traceparent")
        rest = text[_LENGTH:]
        # Later versions may add fields at the end.
        if rest and (match["version"] == "00" or not rest.startswith("-")):
            raise ValueError("not a traceparent of its version")
        return cls(match["trace_id"], match["span_id"], int(match["flags"], 16) & _KNOWN_FLAGS)

    @classmethod
    def of(cls, values: Sequence[str]) -> Self | None:
        """Return what a request says of its trace; None unless it has one valid `traceparent`."""
        if len(values) != 1:
            return None
        try:
            return cls.parse(values[0])
        except ValueError:
            return None

    @classmethod
    def new(cls, *, sampled: bool = False) -> Self:
        """Begin a trace."""
        return cls(_random_hex(16), _random_hex(8), _SAMPLED if sampled else 0)

    def child(self) -> "TraceContext":
        """Begin a span below this one."""
        return TraceContext(self.trace_id, _random_hex(8), self.flags)

    def __str__(self) -> str:
        """Write it as a `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def _random_hex(size: int) -> str:
    """Return an id of so many bytes. It is no secret: the system's generator costs several times
    as much."""
    return f"{random.getrandbits(8 * size) or 1:0{2 * size}x}"


_current: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)


def current() -> TraceContext | None:
    """Return the span that is at work in this context; None outside of requests and calls."""
    return _current.get()


def enter(span: TraceContext) -> None:
    """Have this context work for a span, and name its trace in the log lines from now on."""
    _current.set(span)
    structlog.contextvars.bind_contextvars(trace_id=span.trace_id)
