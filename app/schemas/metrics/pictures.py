"""Metrics for pictures: of a job, and of many jobs at once."""

from typing import Any

from marshmallow import Schema, ValidationError, fields, validates_schema

from app.schemas.fields import INT64_MAX, INT64_MIN, Choice, Many, QueryWhole, Text
from app.schemas.ids import Id
from app.schemas.loading import Query

#: Jobs of one summary.
MOST_JOBS = 50
#: Names of numbers that one answer is about.
MOST_KEYS = 64

AXES = ("step", "time")


class JobMetricsQuery(Query):
    """`GET /jobs/{job_id}/metrics`."""

    max_points = QueryWhole("0 means the coordinator's default.", load_default=0)
    keys = Many(
        "Name of a number, such as `loss` or `eval_accuracy`; the others are left out. Repeat it "
        "for several.",
        Text("", most=1024, blank=False),
        most=MOST_KEYS,
        load_default=list,
    )
    from_step = QueryWhole(
        "Only points of this step or a later one.",
        least=INT64_MIN,
        most=INT64_MAX,
        load_default=None,
    )
    to_step = QueryWhole(
        "Only points of this step or an earlier one.",
        least=INT64_MIN,
        most=INT64_MAX,
        load_default=None,
    )
    shape = Choice(
        "`points` has all numbers of each point; `columns` has arrays for each number, and the "
        "minimum and maximum of what lies between where points were left out.",
        ("points", "columns"),
        load_default="points",
    )
    x = Choice("What the columns are drawn over.", AXES, load_default="step")

    @validates_schema
    def _is_a_range(self, data: dict[str, Any], **_: Any) -> None:
        first, last = data.get("from_step"), data.get("to_step")
        if first is not None and last is not None and first > last:
            raise ValidationError({"to_step": ["Must not be below from_step."]})


class MetricsSummaryQuery(Query):
    """`GET /metrics-summary`."""

    job_id = Many(
        "A job. Repeat it for several.", Id("", blank=False), least=1, most=MOST_JOBS, required=True
    )
    key = Text("Name of a number.", most=1024, blank=False, load_default="loss")
    points = QueryWhole(
        "Maximum number of points of each job.", least=2, most=1000, load_default=60
    )
    x = Choice("What it is drawn over.", AXES, load_default="step")


class Buckets(Schema):
    """What lies between the points: arrays of the same length, by step."""

    from_step = fields.List(fields.Integer(), required=True)
    to_step = fields.List(fields.Integer(), required=True)
    minimum = fields.List(fields.Float(allow_none=True), required=True)
    maximum = fields.List(fields.Float(allow_none=True), required=True)


class Series(Schema):
    """The points of one number: arrays of the same length."""

    x = fields.List(
        fields.Float(allow_none=True),
        required=True,
        metadata={"description": "Steps, or seconds since 1970; null where the time is unknown."},
    )
    y = fields.List(
        fields.Float(allow_none=True),
        required=True,
        metadata={"description": "Null stands for a number that JSON does not have."},
    )
    buckets = fields.Nested(Buckets)


class JobMetricsColumns(Schema):
    """The metrics of a job as `shape=columns` asks for them."""

    job_id = fields.String(required=True)
    total_points = fields.Integer(
        required=True, metadata={"description": "Points before any were left out."}
    )
    x = Choice("What `x` of the series is.", AXES, required=True)
    series = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(Series),
        required=True,
        metadata={"description": "By the name of the number."},
    )


class JobFailure(Schema):
    """Why there is nothing of a job: an error of the catalogue."""

    code = fields.String(required=True)
    message = fields.String(required=True)


class JobSeries(Schema):
    """One number of one job: its series, or why there is none."""

    job_id = fields.String(required=True)
    total_points = fields.Integer(required=True)
    series = fields.Nested(
        Series,
        required=True,
        allow_none=True,
        metadata={"description": "Null if there is none; empty if the job has no such number."},
    )
    error = fields.Nested(JobFailure, required=True, allow_none=True)


class MetricsSummary(Schema):
    """One number of many jobs, in the order in which they were asked for."""

    key = fields.String(required=True)
    x = Choice("What `x` of the series is.", AXES, required=True)
    jobs = fields.List(fields.Nested(JobSeries), required=True)


JOB_METRICS_QUERY = JobMetricsQuery()
METRICS_SUMMARY_QUERY = MetricsSummaryQuery()
JOB_METRICS_COLUMNS = JobMetricsColumns()
METRICS_SUMMARY = MetricsSummary()
