"""A filter of log lines as the contract has it."""

from google.protobuf.timestamp_pb2 import Timestamp

from app.log_filter import LogFilter
from generated.mindcoordinator.v1 import watch_pb2


def filter_message(log_filter: LogFilter) -> watch_pb2.LogFilter | None:
    """Return the message of a filter; None if every entry passes."""
    if log_filter.passes_all:
        return None
    return watch_pb2.LogFilter(
        min_level=watch_pb2.LogLevel.ValueType(log_filter.min_level),
        ranks=sorted(log_filter.ranks),
        sources=sorted(log_filter.sources),
        contains=log_filter.contains,
        matches=log_filter.matches,
        since=_time(log_filter.since),
        until=_time(log_filter.until),
    )


def _time(nanoseconds: int | None) -> Timestamp | None:
    if nanoseconds is None:
        return None
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)
