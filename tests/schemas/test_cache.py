"""The request's Cache-Control, as RFC 5861 and RFC 9111 have it."""

import pytest
from multidict import CIMultiDict

from app.schemas.cache import STALE_HEADERS
from app.schemas.loading import load_headers


def seconds(*lines: str) -> int | None:
    headers = CIMultiDict([("Cache-Control", line) for line in lines])
    loaded: int | None = load_headers(STALE_HEADERS, headers)["stale_if_error"]
    return loaded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stale-if-error=60", 60),
        ("stale-if-error=0", 0),
        ("Stale-If-ERROR=60", 60),
        ("max-age=0, stale-if-error=60", 60),
        ("max-age=0,stale-if-error=60,no-transform", 60),
        (",, stale-if-error=60 ,", 60),
        ('stale-if-error="60"', 60),
        ('community="UCI, stale-if-error=5", stale-if-error=60', 60),
        ("stale-if-error=007", 7),
        # RFC 9111, 1.2.2
        ("stale-if-error=9999999999", 2**31),
        ("stale-if-error=" + "9" * 5000, 2**31),
        # RFC 9111, 4.2.1: the first one counts.
        ("stale-if-error=5, stale-if-error=60", 5),
    ],
)
def test_what_it_allows(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no-cache",
        "max-stale=60",
        "stale-if-error",
        "stale-if-error=",
        "stale-if-error=-1",
        "stale-if-error=1.5",
        "stale-if-error=1e3",
        "stale-if-error=soon",
        "stale-if-error=٦٠",
        "stale-if-error = 60",
        "stale-if-error=60 s",
        "x-stale-if-error=60",
        'community="stale-if-error=60"',
        "stale-while-revalidate=60",
    ],
)
def test_what_makes_no_sense_counts_as_not_given(text: str) -> None:
    assert seconds(text) is None


def test_several_lines_are_one_list() -> None:
    assert seconds("max-age=0", "stale-if-error=60") == 60
    assert seconds() is None
