from typing import Any

import pytest
from marshmallow import Schema
from multidict import MultiDict

from app.errors import VALIDATION_ERROR, ApiError
from app.log_filter import LogFilter
from app.schemas.cluster import LIST_NODES_QUERY
from app.schemas.data import DATA_CACHE_QUERY
from app.schemas.evaluations import LIST_EVALUATIONS_QUERY
from app.schemas.jobs import JOB_STATUSES, LIST_JOBS_QUERY
from app.schemas.loading import NO_QUERY, load_query
from app.schemas.logs.queries import LOG_ENTRIES_QUERY, LOG_MARKS_QUERY
from app.schemas.metrics.pictures import JOB_METRICS_QUERY
from app.schemas.monitoring import LOGS_QUERY, METRICS_STREAM_QUERY
from app.schemas.queue import QUEUE_QUERY
from app.schemas.streams.many_jobs import EVENTS_QUERY
from generated.mindcoordinator.v1.watch_pb2 import LogLevel

PAGE = {"page_size": 20, "page_token": ""}
STREAM = {"last_event_id": "", "last_event_id_of_polyfill": "", "ticket": ""}

DEFAULTS: list[tuple[Schema, dict[str, Any]]] = [
    (
        LIST_JOBS_QUERY,
        {
            **PAGE,
            "statuses": [],
            "order_by": "",
            "label_filter": {},
            "name_contains": "",
            "user_ids": [],
            "created_after": None,
            "kind": "",
            "parent_job_id": "",
        },
    ),
    (LIST_EVALUATIONS_QUERY, PAGE),
    (LIST_NODES_QUERY, {**PAGE, "status_filter": ""}),
    (
        JOB_METRICS_QUERY,
        {
            "max_points": 0,
            "keys": [],
            "from_step": None,
            "to_step": None,
            "shape": "points",
            "x": "step",
        },
    ),
    (
        LOG_ENTRIES_QUERY,
        {"first": None, "before": None, "limit": 200, "epoch": "", "log_filter": LogFilter()},
    ),
    (LOG_MARKS_QUERY, {"buckets": 400}),
    (
        LOGS_QUERY,
        {
            **STREAM,
            "follow": True,
            "tail": 100,
            "first": None,
            "format": None,
            "log_filter": LogFilter(min_level=2),
        },
    ),
    (METRICS_STREAM_QUERY, {**STREAM, "interval": 5}),
    (QUEUE_QUERY, {**PAGE, "queue_name": ""}),
    (DATA_CACHE_QUERY, {"node_id": ""}),
    (NO_QUERY, {}),
]
SCHEMAS = [schema for schema, _ in DEFAULTS]

#: Those that have the conditions of a filter of log lines.
FILTERED: list[Schema] = [LOGS_QUERY, LOG_ENTRIES_QUERY]
#: May be given more than once.
REPEATED = {
    "status": "TRAINING",
    "rank": "1",
    "source": "stdout",
    "keys": "loss",
    "label": "a=b",
    "user_id": "ann",
}
#: What else is not "1".
ONES = {
    **{"level": "INFO", "format": "sse", "since": "1s", "until": "1s"},
    **{"shape": "points", "x": "time"},
    **{"created_after": "2026-11-01T00:00:00Z", "kind": "training"},
}

#: Schema, argument, least, most.
NUMBERS: list[tuple[Schema, str, int, int]] = [
    *((schema, "page_size", 1, 100) for schema in (*SCHEMAS[:3], QUEUE_QUERY)),
    (JOB_METRICS_QUERY, "max_points", 0, 2**31 - 1),
    (JOB_METRICS_QUERY, "from_step", -(2**63), 2**63 - 1),
    (JOB_METRICS_QUERY, "to_step", -(2**63), 2**63 - 1),
    (LOG_ENTRIES_QUERY, "from", 1, 10**18 - 1),
    (LOG_ENTRIES_QUERY, "before", 1, 10**18 - 1),
    (LOG_ENTRIES_QUERY, "limit", 1, 1000),
    (LOG_MARKS_QUERY, "buckets", 1, 2000),
    (LOGS_QUERY, "tail", 0, 1_000_000),
    (LOGS_QUERY, "from", 1, 10**18 - 1),
    (METRICS_STREAM_QUERY, "interval", 1, 60),
]
NOT_NUMBERS = [
    "",
    " ",
    "x",
    "1.0",
    "1e1",
    "+5",
    " 5",
    "5 ",
    "5\n",
    "1_0",
    "٣",
    "0x5",
    "true",
]

#: Schema, argument, most characters.
TEXTS: list[tuple[Schema, str, int]] = [
    *((schema, "page_token", 4096) for schema in (*SCHEMAS[:3], QUEUE_QUERY)),
    (LIST_JOBS_QUERY, "order_by", 256),
    (LIST_NODES_QUERY, "status_filter", 64),
    (QUEUE_QUERY, "queue_name", 256),
    (DATA_CACHE_QUERY, "node_id", 256),
    (LOG_ENTRIES_QUERY, "epoch", 32),
    *(
        (schema, name, 256)
        for schema in (LOGS_QUERY, METRICS_STREAM_QUERY)
        for name in ("last_event_id", "lastEventId")
    ),
    *((schema, "ticket", 1024) for schema in (LOGS_QUERY, METRICS_STREAM_QUERY)),
    *((schema, name, 256) for schema in FILTERED for name in ("contains", "matches")),
]
#: Of a filter, which are tested in `test_log_filters`.
CONDITIONS = ("level", "rank", "source", "since", "until")


def load(schema: Schema, *arguments: tuple[str, str]) -> dict[str, Any]:
    return load_query(schema, MultiDict(arguments))


def problems(schema: Schema, *arguments: tuple[str, str]) -> list[str]:
    with pytest.raises(ApiError) as refused:
        load(schema, *arguments)
    assert refused.value.kind is VALIDATION_ERROR
    return [problem.field for problem in refused.value.details]


def of(schema: Schema) -> str:
    return type(schema).__name__


def arguments_of(schema: Schema) -> dict[str, str]:
    """Each argument as it is sent, and its name in what is loaded."""
    return {field.data_key or name: name for name, field in schema.fields.items()}


@pytest.mark.parametrize(("schema", "loaded"), DEFAULTS, ids=[of(schema) for schema in SCHEMAS])
def test_defaults(schema: Schema, loaded: dict[str, Any]) -> None:
    assert load(schema) == loaded


@pytest.mark.parametrize("schema", SCHEMAS, ids=of)
def test_an_argument_that_does_not_exist(schema: Schema) -> None:
    assert problems(schema, ("no_such", "1")) == ["no_such"]
    assert problems(schema, ("tenant_id", "other")) == ["tenant_id"]


@pytest.mark.parametrize("schema", SCHEMAS, ids=of)
def test_an_argument_that_is_given_twice(schema: Schema) -> None:
    for name in arguments_of(schema):
        value = {**REPEATED, **ONES}.get(name, "1")
        if name in REPEATED:
            load(schema, (name, value), (name, value))
        else:
            assert problems(schema, (name, value), (name, value)) == [name]


@pytest.mark.parametrize(("schema", "name", "least", "most"), NUMBERS)
def test_numbers(schema: Schema, name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert load(schema, (name, str(value)))[arguments_of(schema)[name]] == value
    for wrong in (str(least - 1), str(most + 1), "9" * 5000, "-" + "9" * 30, *NOT_NUMBERS):
        assert problems(schema, (name, wrong)) == [name], wrong


@pytest.mark.parametrize(("schema", "name", "most"), TEXTS)
def test_texts(schema: Schema, name: str, most: int) -> None:
    for value in ("", "x" * most, "ü"):
        loaded = load(schema, (name, value))
        own = arguments_of(schema)[name]
        assert (loaded[own] if own in loaded else getattr(loaded["log_filter"], own)) == value
    for wrong in ("x" * (most + 1), "a\0b", "\ud800"):
        assert problems(schema, (name, wrong)) == [name]


def test_every_argument_is_tested_above() -> None:
    tested = {(of(schema), name) for schema, name, *_ in NUMBERS}
    tested |= {(of(schema), name) for schema, name, _ in TEXTS}
    tested |= {("ListJobsQuery", "status"), ("LogsQuery", "follow"), ("LogsQuery", "format")}
    # In tests/api/test_changing_jobs.py.
    others = ("label", "name", "user_id", "created_after", "kind", "parent_job_id")
    tested |= {("ListJobsQuery", name) for name in others}
    tested |= {(of(schema), name) for schema in FILTERED for name in CONDITIONS}
    tested |= {("JobMetricsQuery", name) for name in ("keys", "shape", "x")}

    assert tested == {(of(schema), name) for schema in SCHEMAS for name in arguments_of(schema)}


def test_statuses() -> None:
    every = [("status", status) for status in JOB_STATUSES]

    assert load(LIST_JOBS_QUERY, *every)["statuses"] == list(JOB_STATUSES)
    assert len(JOB_STATUSES) == 13
    for wrong in ("", "training", "UNSPECIFIED", "JOB_STATUS_TRAINING", "TRAINING,QUEUED"):
        assert problems(LIST_JOBS_QUERY, ("status", "QUEUED"), ("status", wrong)) == ["status.1"]


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_levels(level: str) -> None:
    number = LogLevel.Value(f"LOG_LEVEL_{level}")
    # Every entry passes DEBUG, those without a level, too.
    expected = 0 if level == "DEBUG" else number
    assert load(LOGS_QUERY, ("level", level))["log_filter"].min_level == expected


@pytest.mark.parametrize("level", ["", "info", "WARN", "CRITICAL", "UNSPECIFIED", "2"])
def test_no_levels(level: str) -> None:
    assert problems(LOGS_QUERY, ("level", level)) == ["level"]


@pytest.mark.parametrize(
    ("text", "follow"),
    [("true", True), ("True", True), ("1", True), ("false", False), ("FALSE", False), ("0", False)],
)
def test_follow(text: str, follow: bool) -> None:
    assert load(LOGS_QUERY, ("follow", text))["follow"] is follow


@pytest.mark.parametrize("text", ["", "yes", "no", "on", "2", "truee", " true"])
def test_no_follow(text: str) -> None:
    assert problems(LOGS_QUERY, ("follow", text)) == ["follow"]


def test_everything_at_once() -> None:
    found = problems(
        LOGS_QUERY,
        ("follow", "maybe"),
        ("level", "x"),
        ("tail", "-1"),
        ("tail", "3"),
        ("nope", ""),
    )

    assert set(found) == {"follow", "level", "tail", "nope"}


def test_labels_of_a_selection_are_read_and_judged() -> None:
    query = MultiDict([("label", "team=nlp"), ("label", "a=b=c")])
    found = load_query(EVENTS_QUERY, query)
    assert [*next(v for k, v in found.items() if "label" in k)] == [("team", "nlp"), ("a", "b=c")]
    for wrong in ("team", "=x", "a=\0", "x" * 2000):
        with pytest.raises(ApiError) as caught:
            load_query(EVENTS_QUERY, MultiDict(label=wrong))
        assert caught.value.kind is VALIDATION_ERROR
