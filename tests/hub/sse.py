"""Reading a stream of Server-Sent Events as a strict client would."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event."""

    name: str
    id: str
    data: Any
    retry: int | None = None

    @property
    def offset(self) -> int:
        return int(self.id.partition(":")[2])

    @property
    def epoch(self) -> str:
        return self.id.partition(":")[0]


class Parser:
    """Takes bytes as they come, gives events; anything that is not what we write fails.

    Of a stream over `many` jobs only bookmarks have ids.
    """

    def __init__(self, *, many: bool = False) -> None:
        self._many = many
        self._rest = b""
        self.comments = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            yield self._event(block)

    @property
    def unfinished(self) -> bytes:
        return self._rest

    def _event(self, block: bytes) -> Event:
        fields: dict[str, str] = {}
        for line in block.decode().split("\n"):
            if line.startswith(":"):
                self.comments += 1
                continue
            name, separator, value = line.partition(": ")
            assert separator, f"not a field: {line!r}"
            assert name not in fields, f"{name} twice in {block!r}"
            fields[name] = value
        if self._many and fields.get("event") != "bookmark":
            assert "id" not in fields, f"an id in {block!r}"
            fields["id"] = ""
        assert {"id", "event", "data"} <= fields.keys(), f"incomplete event {block!r}"
        retry = fields.pop("retry", None)
        event = Event(
            name=fields.pop("event"),
            id=fields.pop("id"),
            data=json.loads(fields.pop("data")),
            retry=None if retry is None else int(retry),
        )
        assert not fields, f"unknown fields {fields}"
        return event


def parse(data: bytes) -> list[Event]:
    """Parse a whole stream; it must end with a whole event."""
    parser = Parser()
    events = list(parser.feed(data))
    assert parser.unfinished == b""
    return events
