"""Queries that need something, or whose arguments exclude each other."""

from typing import Any

import pytest
from marshmallow import Schema
from multidict import MultiDict

from app.errors import VALIDATION_ERROR, ApiError
from app.log_filter import LogFilter
from app.schemas.loading import load_query
from app.schemas.logs.queries import LOG_ENTRIES_QUERY, LOG_SEARCH_QUERY
from app.schemas.metrics.pictures import JOB_METRICS_QUERY, METRICS_SUMMARY_QUERY


def load(schema: Schema, *arguments: tuple[str, str]) -> dict[str, Any]:
    return load_query(schema, MultiDict(arguments))


def test_a_search_has_defaults() -> None:
    loaded = load(LOG_SEARCH_QUERY, ("contains", "x"))
    assert (loaded["before"], loaded["limit"]) == (None, 100)
    assert loaded["log_filter"] == LogFilter(contains="x")


def test_a_summary_has_defaults() -> None:
    loaded = load(METRICS_SUMMARY_QUERY, ("job_id", "a"), ("job_id", "b"))
    assert loaded == {"job_id": ["a", "b"], "key": "loss", "points": 60, "x": "step"}


@pytest.mark.parametrize(
    ("schema", "arguments", "field"),
    [
        (LOG_SEARCH_QUERY, [], "contains"),
        (LOG_SEARCH_QUERY, [("rank", "1")], "contains"),
        (LOG_SEARCH_QUERY, [("contains", "x"), ("limit", "1001")], "limit"),
        (LOG_SEARCH_QUERY, [("contains", "x"), ("before", "0")], "before"),
        (LOG_ENTRIES_QUERY, [("from", "1"), ("before", "9")], "before"),
        (JOB_METRICS_QUERY, [("from_step", "2"), ("to_step", "1")], "to_step"),
        (JOB_METRICS_QUERY, [("keys", "")], "keys.0"),
        (JOB_METRICS_QUERY, [("keys", f"k{n}") for n in range(65)], "keys"),
        (JOB_METRICS_QUERY, [("shape", "rows")], "shape"),
        (METRICS_SUMMARY_QUERY, [], "job_id"),
        (METRICS_SUMMARY_QUERY, [("job_id", f"j{n}") for n in range(51)], "job_id"),
        (METRICS_SUMMARY_QUERY, [("job_id", "j"), ("points", "1")], "points"),
        (METRICS_SUMMARY_QUERY, [("job_id", "j"), ("key", "")], "key"),
    ],
)
def test_what_does_not_fit_is_refused(
    schema: Schema, arguments: list[tuple[str, str]], field: str
) -> None:
    with pytest.raises(ApiError) as refused:
        load(schema, *arguments)
    assert refused.value.kind is VALIDATION_ERROR
    assert [problem.field for problem in refused.value.details] == [field]
