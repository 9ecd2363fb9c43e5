"""Log entries on their way to the hub: checked and written as JSON in one pass.

Each field of an entry is read once, and what mostly is as in the entry before is written
once: it runs for every line of every log. What this pass does not know at sight is left to
those who know all of it, `check_fields` and the converter.
"""

from collections.abc import Iterable
from typing import Final

import orjson

from app.bridge.contract.fields import MAX_ID, MAX_OFFSET, MAX_TEXT, check_fields
from app.bridge.converters import JsonObject, converter_of, time_text
from app.bridge.streams.json_lines import one_line, with_escaped_breaks
from app.hub.upstream import LogRecord
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

_entry = converter_of(LogEntry)


def _members(values: JsonObject) -> bytes:
    """Write members of an entry's JSON, with the comma before them."""
    return b"," + one_line(values)[1:-1]


#: From an entry's level to its message, by level.
_LEVELS: Final = {
    level: _members({"level": _entry(LogEntry(level=level))["level"]}) + b',"message":'
    for level in LogLevel.values()
}


class LogRecords:
    """Reads the entries of one job. Remembers where they come from: source, rank and node."""

    #: Of where entries come from, how many are remembered.
    MOST: Final = 1024

    def __init__(self) -> None:
        self._origins: dict[tuple[str, int, str], bytes] = {}
        #: The second of the newest entry, and the member `timestamp` up to it.
        self._second = 0
        self._begin: bytes | None = None

    def read(self, entries: Iterable[LogEntry]) -> list[LogRecord]:
        """Return entries as records. Raises `BrokenContract` for a field out of its bounds."""
        records: list[LogRecord] = []
        origins, levels = self._origins, _LEVELS
        second, begin = self._second, self._begin
        nanosecond, time = -1, None
        for entry in entries:
            timestamp = entry.timestamp
            seconds, nanos = timestamp.seconds, timestamp.nanos
            if seconds != second:
                second, nanosecond, time = seconds, -1, None
                begin = _begin_of_time(seconds)
            if nanos != nanosecond:
                nanosecond, time = nanos, None if begin is None else _time(begin, nanos)
            offset, level, text = entry.offset, entry.level, entry.message
            origin = origins.get((entry.source, entry.rank, entry.node_id))
            if (
                time is None
                or origin is None
                or level not in levels
                or not 1 <= offset <= MAX_OFFSET
                or len(text) > MAX_TEXT
                or entry.fields
            ):
                data = self._read_thoroughly(entry)
            else:
                message = orjson.dumps(text)
                if not text.isascii():
                    message = with_escaped_breaks(message)
                data = b'{"offset":%d%b%b%b%b' % (offset, levels[level], message, time, origin)
            records.append(LogRecord(offset, level, data))
        self._second, self._begin = second, begin
        return records

    def _read_thoroughly(self, entry: LogEntry) -> bytes:
        check_fields(entry)
        values = _entry(entry)
        origin = (entry.source, entry.rank, entry.node_id)
        if origin not in self._origins and len(entry.source) <= MAX_ID:
            if len(self._origins) >= self.MOST:
                del self._origins[next(iter(self._origins))]
            told = {name: values[name] for name in ("source", "rank", "node_id")}
            self._origins[origin] = _members({**told, "fields": {}}) + b"}"
        return one_line(values)


def _begin_of_time(seconds: int) -> bytes | None:
    """Write the member `timestamp` up to the second.

    None if the contract has no such time, or if it may be that there is none.
    """
    text = time_text(seconds, 0) if seconds else None
    return None if text is None else b',"timestamp":"%b' % text.removesuffix("Z").encode()


def _time(begin: bytes, nanos: int) -> bytes | None:
    """Write the member `timestamp`, given its begin, as `time_text` does; None if out of bounds."""
    if not 0 <= nanos <= 999_999_999:
        return None
    if not nanos:
        return b'%bZ"' % begin
    if nanos % 1_000:
        return b'%b.%09dZ"' % (begin, nanos)
    if nanos % 1_000_000:
        return b'%b.%06dZ"' % (begin, nanos // 1_000)
    return b'%b.%03dZ"' % (begin, nanos // 1_000_000)
