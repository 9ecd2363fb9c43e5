"""A log as text: what it remembers of lines that are not whole is bounded."""

import orjson

from app.hub.core import frames
from app.hub.core.forms import Text
from app.hub.upstream import Position


def test_pieces_without_text_are_written_as_they_are_where_there_are_too_many() -> None:
    form = Text()
    written = b""
    most = Text.MOST_OPEN // Text.PIECE
    for offset in range(1, 2 * most + 1):
        entry = {"offset": offset, "message": "", "rank": offset, "fields": {"partial": "true"}}
        frame = frames.log_frame(frames.log_prefix("e"), offset, orjson.dumps(entry))
        written += form.entries([frame])
    assert written == b"\n" * most
    assert form.end(Position("e", 2 * most), "COMPLETED") == b"\n" * most
