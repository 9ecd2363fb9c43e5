"""The contract's log filters as values."""

from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from app.coordinator.errors import InvalidArgument
from app.log_filter import MAX_RANKS, MAX_SOURCES, BadFilter, LogFilter
from generated.mindcoordinator.v1 import watch_pb2


def filter_of(message: watch_pb2.LogFilter, *, min_level: int = 0) -> LogFilter:
    """The filter that a request's field `filter` is, for entries of `min_level` and above.

    Raises InvalidArgument.
    """
    for name, most in (("ranks", MAX_RANKS), ("sources", MAX_SOURCES)):
        if len(getattr(message, name)) > most:
            raise InvalidArgument(f"filter.{name}", f"must be at most {most}")
    try:
        given = LogFilter(
            min_level=message.min_level,
            ranks=frozenset(message.ranks),
            sources=frozenset(message.sources),
            contains=message.contains,
            matches=message.matches,
            since=_nanoseconds(message.since) if message.HasField("since") else None,
            until=_nanoseconds(message.until) if message.HasField("until") else None,
        )
    except BadFilter as error:
        raise InvalidArgument(f"filter.{error.field}", error.problem) from None
    return replace(given, min_level=min_level) if min_level > given.min_level else given


def _nanoseconds(time: Timestamp) -> int:
    return time.seconds * 1_000_000_000 + time.nanos
