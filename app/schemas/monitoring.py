"""Queries of the monitoring endpoints."""

from app.schemas.fields import Choice, QueryFlag, QueryWhole, Text
from app.schemas.loading import Query
from app.schemas.logs.filters import LOG_LEVELS, LogFilterQuery

#: The largest offset: of 18 digits, as an SSE id has at most.
MAX_OFFSET = 10**18 - 1
LOG_FORMATS = ("sse", "text", "ndjson")


class StreamQuery(Query):
    """What both streams take."""

    last_event_id = Text(
        "Same as the header Last-Event-ID, which takes precedence.", most=256, load_default=""
    )
    last_event_id_of_polyfill = Text(
        "Same as last_event_id, under the name that widespread EventSource polyfills send. "
        "Both are accepted if they are equal.",
        most=256,
        data_key="lastEventId",
        load_default="",
    )
    ticket = Text("A stream ticket, in place of a token.", most=1024, load_default="")


class LogsQuery(StreamQuery, LogFilterQuery):
    """`GET /jobs/{job_id}/logs`."""

    follow = QueryFlag("Whether to continue with new entries.", load_default=True)
    level = Choice("Minimum level of the entries.", LOG_LEVELS, load_default="INFO")
    tail = QueryWhole(
        "Number of recent entries to start with, of those that pass the filter.",
        most=1_000_000,
        load_default=100,
    )
    first = QueryWhole(
        "Offset of the entry to start with, in place of a tail.",
        least=1,
        most=MAX_OFFSET,
        data_key="from",
        load_default=None,
    )
    format = Choice(
        "Form of the log, in place of the header Accept: Server-Sent Events, the lines alone, or "
        "one JSON object a line.",
        LOG_FORMATS,
        load_default=None,
    )


class MetricsStreamQuery(StreamQuery):
    """`GET /jobs/{job_id}/metrics/stream`."""

    interval = QueryWhole("Seconds between snapshots.", least=1, most=60, load_default=5)


LOGS_QUERY = LogsQuery()
METRICS_STREAM_QUERY = MetricsStreamQuery()
