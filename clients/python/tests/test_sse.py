"""Server-Sent Events, whatever the pieces in which they arrive."""

import pytest

from scaimind.core.sse import MAX_EVENT, Decoder, ServerEvent
from scaimind.errors import ProtocolError

STREAM = (
    b"\xef\xbb\xbfretry: 1500\r\nevent: bookmark\rid: e:0\ndata: {}\n\n: keepalive\n"
    b"id: e:1\nevent: log\ndata: a\ndata:  b\n\n"
    b"id: bad\0id\ndata\n\nevent: empty\n\nretry: x\ndata: \xe2\x80\xa8z\r\n\r\n"
)
EVENTS = [
    ServerEvent("bookmark", "{}", "e:0"),
    ServerEvent("log", "a\n b", "e:1"),
    ServerEvent("message", "", "e:1"),
    ServerEvent("message", "\u2028z", "e:1"),
]


@pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
def test_events_do_not_depend_on_how_they_arrive(size: int) -> None:
    decoder = Decoder()
    events = []
    for at in range(0, len(STREAM), size):
        events += decoder.feed(STREAM[at : at + size])
    assert events == EVENTS
    assert decoder.retry_ms == 1500


def test_an_event_without_an_end_is_bounded() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: " + b"x" * (MAX_EVENT - 10)) == []
    with pytest.raises(ProtocolError):
        decoder.feed(b"x" * 65536)
    decoder = Decoder()
    assert decoder.feed(b"data: x\n" * (MAX_EVENT // 8)) == []
    with pytest.raises(ProtocolError):
        decoder.feed(b"data: x\n" * 1000)
