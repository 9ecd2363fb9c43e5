"""What the job cache is asked, and what it answers beside jobs."""

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields, validate

from app.schemas.fields import QueryWhole
from app.schemas.headers import EntityTags
from app.schemas.jobs import JOB_STATUSES
from app.schemas.loading import Headers, Query

#: RFC 9110, 5.6: a name, and as its argument another one or a string in quotes.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVE = re.compile(rf'(?:^|,)[ \t]*({_NAME})(?:=({_NAME}|"(?:[^"\\]|\\.)*"))?[ \t]*(?=,|$)')
#: RFC 9111, 1.2.2: what is larger counts as this.
_LONGEST = 2**31


class StaleIfError(fields.String):
    """The seconds of `stale-if-error` in a Cache-Control (RFC 5861, 4); None if it has none.

    A directive that makes no sense counts as not given (RFC 9111, 5.2.3); of
    several, the first counts (4.2.1).
    """

    #: As a list, the header may be given more than once (RFC 9110, 5.3).
    LIST = True

    def _deserialize(  # type: ignore[override]  # the seconds are what it stands for
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> int | None:
        for name, argument in _DIRECTIVE.findall(value):
            if name.lower() == "stale-if-error":
                seconds = re.sub(r"\\(.)", r"\1", argument.strip('"'))
                if seconds.isascii() and seconds.isdecimal():
                    # A number of many digits is not even read.
                    return min(int(seconds), _LONGEST) if len(seconds) <= 10 else _LONGEST
                return None
        return None


class StaleHeaders(Headers):
    """Of reads that the job cache can answer while the coordinator is away."""

    stale_if_error = StaleIfError(
        metadata={
            "description": "With the directive `stale-if-error=<seconds>` (RFC 5861), an answer "
            "up to that age is returned from the cache while the coordinator is unavailable."
        },
        data_key="Cache-Control",
        load_default=None,
    )


class GetJobHeaders(StaleHeaders):
    """`GET /jobs/{job_id}`."""

    if_none_match = EntityTags(
        "The ETag of the job as the client knows it; 304 if it has not changed.",
        data_key="If-None-Match",
        load_default="",
    )


class StaleMeta(Schema):
    """Of an answer from the cache; other answers have none."""

    stale = fields.Boolean(required=True)
    synced_at = fields.DateTime(
        required=True, metadata={"description": "When the coordinator returned its oldest part."}
    )


class SummaryQuery(Query):
    """`GET /summary`."""

    days = QueryWhole("Days of run times, today included (UTC).", least=1, most=90, load_default=7)


class JobCounts(Schema):
    """How many jobs there are."""

    total = fields.Integer(required=True)
    by_status = fields.Dict(
        keys=fields.String(validate=validate.OneOf(JOB_STATUSES)),
        values=fields.Integer(),
        required=True,
        metadata={"description": "Every status is present, also with 0."},
    )


class GpuCounts(Schema):
    """GPUs, as the jobs asked for them."""

    requested = fields.Integer(
        required=True,
        metadata={"description": "GPUs of running and waiting jobs; PAUSED jobs are not counted."},
    )
    in_use = fields.Integer(
        required=True,
        metadata={"description": "GPUs of jobs that hold them: SCHEDULING to EXPORTING."},
    )


class Failure(Schema):
    """A job that failed."""

    job_id = fields.String(required=True)
    name = fields.String(required=True)
    user_id = fields.String(required=True)
    message = fields.String(required=True)
    error_message = fields.String(required=True)
    ended_at = fields.DateTime(required=True, allow_none=True)


class RunTimes(Schema):
    """How long the jobs took that were completed on a day, from their start to their end.

    Each percentile is within 2.5 % of a run time of that day; runs of less
    than a second count as one second.
    """

    day = fields.Date(required=True, metadata={"description": "UTC."})
    jobs = fields.Integer(required=True)
    p50_seconds = fields.Float(required=True)
    p90_seconds = fields.Float(required=True)
    p99_seconds = fields.Float(required=True)


class SummaryAnswer(Schema):
    """Summary of the tenant's jobs in the cache, including evaluations."""

    jobs = fields.Nested(JobCounts, required=True)
    gpus = fields.Nested(GpuCounts, required=True)
    newest_failures = fields.List(fields.Nested(Failure), required=True)
    run_times = fields.List(
        fields.Nested(RunTimes),
        required=True,
        metadata={"description": "Oldest first; days without a completed job are left out."},
    )


class SummaryMeta(Schema):
    """Freshness of the summary."""

    synced_at = fields.DateTime(
        required=True,
        allow_none=True,
        metadata={
            "description": "When the cache last received an update of a job; null if it never did. "
            "A job is as old as its last read."
        },
    )


STALE_HEADERS = StaleHeaders()
GET_JOB_HEADERS = GetJobHeaders()
STALE_META = StaleMeta()
SUMMARY_QUERY = SummaryQuery()
SUMMARY_ANSWER = SummaryAnswer()
SUMMARY_META = SummaryMeta()
