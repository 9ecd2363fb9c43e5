"""Filters of log lines in a query string."""

from typing import Any

import pytest
from multidict import MultiDict

from app.errors import VALIDATION_ERROR, ApiError
from app.log_filter import LogFilter
from app.schemas.loading import Query, load_query
from app.schemas.logs.filters import LogFilterQuery, Moment

#: 2026-11-27T12:00:00.5Z
NOW = 1_795_780_800_500_000_000
SECOND = 10**9


class Clocked(Query):
    """With a clock that stands still."""

    since = Moment("", now=lambda: NOW)


def filter_of(*arguments: tuple[str, str]) -> LogFilter:
    loaded = load_query(LogFilterQuery(), MultiDict(arguments))
    assert loaded.keys() == {"log_filter"}
    found: LogFilter = loaded["log_filter"]
    return found


def moment(text: str) -> Any:
    return load_query(Clocked(), MultiDict(since=text))["since"]


def problems(*arguments: tuple[str, str]) -> list[str]:
    with pytest.raises(ApiError) as refused:
        filter_of(*arguments)
    assert refused.value.kind is VALIDATION_ERROR
    return [f"{problem.field}: {problem.message}" for problem in refused.value.details]


def test_all_conditions_make_one_filter() -> None:
    made = filter_of(
        ("level", "WARNING"),
        ("rank", "3"),
        ("rank", "0"),
        ("source", "stderr"),
        ("contains", "loss"),
        ("matches", "^step"),
        ("since", "1970-01-01T00:00:01.5Z"),
        ("until", "1970-01-02T00:00:00+00:00"),
    )
    assert made == LogFilter(
        min_level=3,
        ranks=frozenset({0, 3}),
        sources=frozenset({"stderr"}),
        contains="loss",
        matches="^step",
        since=1_500_000_000,
        until=86_400 * SECOND,
    )


def test_without_a_condition_all_pass() -> None:
    assert filter_of().passes_all
    assert filter_of(("level", "DEBUG")).passes_all


@pytest.mark.parametrize(
    ("text", "ago"),
    [("1500ms", 1.5), ("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86_400)],
)
def test_how_long_ago_is_rounded_down_by_a_sixtieth_at_most(text: str, ago: float) -> None:
    length = int(ago * SECOND)
    assert NOW - length - length // 60 <= moment(text) <= NOW - length
    assert moment(text) % (length // 60) == 0


def test_a_time_is_exact_and_a_plus_may_have_become_a_space() -> None:
    assert moment("2026-11-27T12:00:00.5Z") == NOW
    assert moment("2026-11-27T14:00:00.500000 02:00") == NOW
    assert moment("99999d") == 0


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("matches", "(", "matches: Is not a regular expression of RE2"),
        ("matches", r"(\pL{40}){20}", "matches: "),
        ("matches", r"(?i)[^x]{900}\pL{90}", "matches: Takes too much work"),
        ("level", "LOUD", "level: Must be one of: DEBUG"),
        ("rank", "-1", "rank.0: Must be"),
        ("rank", "x", "rank.0: Must be a whole number."),
        ("source", "", "source.0: "),
        ("source", "x" * 65, "source.0: "),
        ("since", "10 minutes", "since: Must be a time such as"),
        ("since", "", "since: Must be a time such as"),
        ("until", "2026-11-27T12:00:00", "until: Must have a time zone"),
        ("until", "0001-01-01T00:00:00Z", "until: Must be a time from 1970"),
    ],
)
def test_what_cannot_be_is_told(name: str, value: str, told: str) -> None:
    [problem] = problems((name, value))
    assert problem.startswith(told)


def test_too_many_of_one_kind_are_refused() -> None:
    assert len(problems(*(("rank", str(number)) for number in range(257)))) == 1
    assert len(problems(*(("source", f"s{number}") for number in range(17)))) == 1
