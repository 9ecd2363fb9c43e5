"""Queries of what reads a log by position, and of searches."""

from typing import Any

from marshmallow import ValidationError, validates_schema

from app.schemas.fields import QueryWhole, Text
from app.schemas.loading import Query
from app.schemas.logs.filters import LogFilterQuery
from app.schemas.monitoring import MAX_OFFSET, StreamQuery


class LogEntriesQuery(LogFilterQuery):
    """`GET /jobs/{job_id}/log-entries`."""

    first = QueryWhole(
        "Offset from which on to read; 1 unless `before` is given.",
        least=1,
        most=MAX_OFFSET,
        data_key="from",
        load_default=None,
    )
    before = QueryWhole(
        "Read the newest entries before this offset.", least=1, most=MAX_OFFSET, load_default=None
    )
    limit = QueryWhole(
        "Maximum number of entries. A page may have fewer, and goes on at `next` all the same.",
        least=1,
        most=1000,
        load_default=200,
    )
    epoch = Text(
        "Epoch of an earlier page. If the log is another one by now, the answer is 409.",
        most=32,
        load_default="",
    )

    @validates_schema
    def _has_one_direction(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("first") is not None and data.get("before") is not None:
            raise ValidationError({"before": ["Send from or before, not both."]})


class LogMarksQuery(Query):
    """`GET /jobs/{job_id}/log-marks`."""

    buckets = QueryWhole("Maximum number of buckets.", least=1, most=2000, load_default=400)


class LogSearchQuery(StreamQuery, LogFilterQuery):
    """`GET /jobs/{job_id}/logs/search`."""

    before = QueryWhole(
        "Search entries before this offset; the newest first.",
        least=1,
        most=MAX_OFFSET,
        load_default=None,
    )
    limit = QueryWhole("Maximum number of matches.", least=1, most=1000, load_default=100)

    @validates_schema
    def _has_a_condition(self, data: dict[str, Any], **_: Any) -> None:
        if not data.get("contains") and not data.get("matches"):
            raise ValidationError({"contains": ["Send contains or matches."]})


LOG_ENTRIES_QUERY = LogEntriesQuery()
LOG_MARKS_QUERY = LogMarksQuery()
LOG_SEARCH_QUERY = LogSearchQuery()
