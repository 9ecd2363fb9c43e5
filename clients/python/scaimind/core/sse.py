"""Server-Sent Events, decoded as WHATWG HTML 9.2.6 says."""

from dataclasses import dataclass
from typing import Final

from scaimind.errors import ProtocolError

#: Bytes of one event; the gateway's are far smaller.
MAX_EVENT: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. `id` is the last id that was sent up to here."""

    name: str
    data: str
    id: str


class Decoder:
    """Turns the bytes of one connection into events. `retry_ms` is the newest `retry:`."""

    def __init__(self, *, last_id: str = "") -> None:
        self.retry_ms: int | None = None
        self._last_id = last_id
        self._buffer = b""
        self._after_cr = False
        self._begun = False
        self._size = 0
        self._name = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """Decode more bytes. Raises `ProtocolError` if an event is over MAX_EVENT."""
        if self._after_cr and piece:
            # The LF of a CRLF that two pieces share.
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        self._buffer += piece
        if not self._begun:
            if b"\xef\xbb\xbf".startswith(self._buffer[:3]) and len(self._buffer) < 3:
                return []
            self._buffer = self._buffer.removeprefix(b"\xef\xbb\xbf")
            self._begun = True
        *lines, self._buffer = _split(self._buffer)
        if self._buffer.endswith(b"\r"):
            lines.append(self._buffer[:-1])
            self._buffer = b""
            self._after_cr = True
        events = []
        for line in lines:
            self._size += len(line) + 1
            if self._size > MAX_EVENT:
                raise ProtocolError(f"An event of the stream is over {MAX_EVENT} bytes.")
            if not line:
                if (event := self._dispatch()) is not None:
                    events.append(event)
            else:
                self._field(line.decode(errors="replace"))
        if self._size + len(self._buffer) > MAX_EVENT:
            raise ProtocolError(f"An event of the stream is over {MAX_EVENT} bytes.")
        return events

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id":
            if "\0" not in value:
                self._last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value[:9])

    def _dispatch(self) -> ServerEvent | None:
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        if not data:
            return None
        return ServerEvent(name or "message", "\n".join(data), self._last_id)


def _split(text: bytes) -> list[bytes]:
    """Split at CRLF, LF and CR, but not at a CR that ends the text: an LF may follow."""
    ends_in_cr = text.endswith(b"\r")
    body = text[:-1] if ends_in_cr else text
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if ends_in_cr:
        lines[-1] += b"\r"
    return lines
