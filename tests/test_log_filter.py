"""Which lines of a log pass, where in them it is, and which conditions are refused."""

import sys
from typing import Any

import pytest

from app.log_filter import JUDGED_BYTES, MAX_PROGRAM, MAX_SPANS, BadFilter, LogFilter

INFO, WARNING = 2, 3


def passes(condition: LogFilter, message: str = "", **entry: Any) -> bool:
    known: dict[str, Any] = {
        "level": INFO,
        "source": "stdout",
        "rank": 0,
        "timestamp_ns": 10,
    } | entry
    return condition.passes(message=message, **known)


def test_without_a_condition_every_entry_passes() -> None:
    assert LogFilter().passes_all
    assert not LogFilter().judges_text
    assert passes(LogFilter(), "anything", level=0)


@pytest.mark.parametrize(
    ("condition", "entry", "expected"),
    [
        ({"min_level": WARNING}, {"level": WARNING}, True),
        ({"min_level": WARNING}, {"level": INFO}, False),
        ({"ranks": frozenset({0, 3})}, {"rank": 3}, True),
        ({"ranks": frozenset({0, 3})}, {"rank": 1}, False),
        ({"sources": frozenset({"stderr"})}, {"source": "stderr"}, True),
        ({"sources": frozenset({"stderr"})}, {"source": "stdout"}, False),
        ({"since": 10}, {"timestamp_ns": 10}, True),
        ({"since": 10}, {"timestamp_ns": 9}, False),
        ({"until": 10}, {"timestamp_ns": 9}, True),
        ({"until": 10}, {"timestamp_ns": 10}, False),
        ({"since": 10, "min_level": WARNING}, {"timestamp_ns": 10, "level": INFO}, False),
    ],
)
def test_every_condition_has_to_hold(
    condition: dict[str, Any], entry: dict[str, Any], expected: bool
) -> None:
    assert not LogFilter(**condition).passes_all
    assert passes(LogFilter(**condition), **entry) is expected


@pytest.mark.parametrize(
    ("contains", "message", "expected"),
    [
        ("out of memory", "CUDA Out Of Memory.", True),
        ("a.b", "aXb", False),
        ("a.b", "xA.By", True),
        ("ÜBUNG", "eine übung", True),
        ("д", "СУД", True),
        # One letter is not two; the two that fold to ASCII letters are equal to them.
        ("ss", "Straße", False),
        ("straße", "STRASSE", False),
        ("k", "\N{KELVIN SIGN}", True),
        ("S", "\N{LATIN SMALL LETTER LONG S}", True),
        ("\N{KELVIN SIGN}", "k", True),
        ("\x00", "a\x00b", True),
        ("x", "", False),
    ],
)
def test_contains_is_a_literal_whatever_its_case(
    contains: str, message: str, expected: bool
) -> None:
    assert passes(LogFilter(contains=contains), message) is expected
    assert bool(LogFilter(contains=contains).spans(message)) is expected


@pytest.mark.parametrize(
    ("matches", "message", "expected"),
    [
        (r"loss=\d+\.", "step 3 loss=1.5", True),
        (r"^step", "the step", False),
        (r"loss$", "the loss", True),
        ("LOSS", "loss", False),
        ("(?i)LOSS", "loss", True),
        (r"^.$", "é", True),
        (r"(a|b)+c", "abac", True),
    ],
)
def test_matches_is_a_regular_expression_of_re2(matches: str, message: str, expected: bool) -> None:
    assert passes(LogFilter(matches=matches), message) is expected


def test_text_is_judged_up_to_its_first_16_kib() -> None:
    needle = LogFilter(contains="needle")
    assert passes(needle, "x" * (JUDGED_BYTES - 6) + "needle")
    assert not passes(needle, "x" * (JUDGED_BYTES - 5) + "needle")
    assert needle.spans("x" * (JUDGED_BYTES - 5) + "needle") == []
    # In bytes of UTF-8, and no character is cut.
    assert passes(needle, "é" * (JUDGED_BYTES // 2 - 3) + "needle")
    assert not passes(needle, "é" * (JUDGED_BYTES // 2 - 2) + "needle")
    assert passes(LogFilter(matches="^(x|é)*$"), "x" + "é" * JUDGED_BYTES)


def test_both_texts_have_to_hold_and_both_are_told() -> None:
    both = LogFilter(contains="loss", matches=r"\d+")
    assert not passes(both, "loss")
    assert not passes(both, "12")
    assert passes(both, "12 LOSS")
    assert both.spans("é 12 LOSS 7") == [(2, 4), (5, 9), (10, 11)]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (LogFilter(contains="B"), 4),
        (LogFilter(matches="[bc]+"), 4),
        (LogFilter(contains="a", matches="c"), 9),
        (LogFilter(contains="a", matches="^b"), 2),
        # What surrounds a message among other bytes is none of it.
        (LogFilter(matches="^b"), 0),
        (LogFilter(matches=r"b\b"), 0),
        (LogFilter(ranks=frozenset({1})), 0),
        (LogFilter(contains="d"), -1),
    ],
)
def test_messages_that_do_not_pass_are_skipped_among_other_bytes(
    condition: LogFilter, expected: int
) -> None:
    data = b"\xff\x12a\x80bba\x00\xfecx\xff"
    assert condition.candidate(data) == expected
    assert condition.candidate(data, len(data)) == (len(data) if not expected else -1)


def test_spans_are_code_points_and_do_not_overlap() -> None:
    message = "\U0001f600é loss=1 loss=2"
    both = LogFilter(contains="loss", matches=r"\w+=\d")
    assert [message[start:end] for start, end in both.spans(message)] == ["loss=1", "loss=2"]
    # None is empty, and there is an end to them.
    assert LogFilter(matches="x*").spans("aaxxa") == [(2, 4)]
    assert len(LogFilter(contains="a").spans("a" * 1000)) == MAX_SPANS
    assert LogFilter(min_level=WARNING).spans("a") == []


def test_a_lone_surrogate_in_a_message_is_one_character() -> None:
    assert LogFilter(contains="x").spans("\ud800x") == [(1, 2)]


def test_equal_conditions_are_equal_values() -> None:
    one = LogFilter(contains="a", ranks=frozenset({1, 2}))
    other = LogFilter(contains="a", ranks=frozenset({2, 1}))
    assert {one: 1}[other] == 1
    assert one != LogFilter(contains="A", ranks=frozenset({1, 2}))
    assert "Program" not in repr(one)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"min_level": 5}, "min_level: must be from 0 to 4"),
        ({"min_level": -1}, "min_level: must be from 0 to 4"),
        ({"ranks": frozenset({-1})}, "ranks: must be from 0 to 2147483647"),
        ({"ranks": frozenset(range(257))}, "ranks: must be at most 256"),
        ({"sources": frozenset({""})}, "sources: must be names of 1 to 64 characters"),
        ({"sources": frozenset({"x" * 65})}, "sources: must be names of 1 to 64 characters"),
        ({"sources": frozenset(map(str, range(17)))}, "sources: must be at most 16"),
        ({"contains": "x" * 257}, "contains: must have at most 256 characters"),
        ({"contains": "\ud800"}, "contains: must be Unicode text without surrogates"),
        ({"matches": "x" * 257}, "matches: must have at most 256 characters"),
        ({"matches": "\ud800"}, "matches: must be Unicode text without surrogates"),
        ({"since": -1}, "since: must be a time from 1970 to 9999"),
        ({"until": 253_402_300_800 * 10**9}, "until: must be a time from 1970 to 9999"),
    ],
)
def test_what_cannot_be_is_refused_by_name(condition: dict[str, Any], message: str) -> None:
    with pytest.raises(BadFilter) as refused:
        LogFilter(**condition)
    assert str(refused.value) == message
    assert message == f"{refused.value.field}: {refused.value.problem}"
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("matches", "reason"),
    [
        ("(", "missing )"),
        ("a**", "bad repetition operator"),
        (r"(a)\1", r"invalid escape sequence: \1"),
        ("(?=a)", "(?="),
        ("a{1001}", "invalid repetition size"),
    ],
)
def test_a_pattern_that_is_none_is_refused_with_re2s_reason(matches: str, reason: str) -> None:
    with pytest.raises(BadFilter, match=r"^matches: is not a regular expression of RE2: ") as bad:
        LogFilter(matches=matches)
    assert reason in str(bad.value)


@pytest.mark.parametrize(
    "matches",
    [
        r"\pL{70}",
        r"(\pL|\pN|\pP){30}",
        "a.{1000}b",
        "((x?){30}){33}" + "y" * 200,
        r"(?i)" + r"\pL\PL" * 42,
        "(.{500})" * 32,
        "(" * 100 + ".{999}" + ")" * 100,
    ],
)
def test_a_pattern_that_takes_too_much_work_is_refused(matches: str) -> None:
    with pytest.raises(BadFilter, match=r"^matches: takes too much work") as bad:
        LogFilter(matches=matches)
    assert f"{MAX_PROGRAM:,}" in str(bad.value)


@pytest.mark.parametrize(
    "matches", ["x" * 256, r"\pL+", "[ab]*a[ab]{900}c", "(?i)" + "é" * 250, "((((((x*)*)*)*)*)*)*"]
)
def test_a_pattern_within_the_limit_is_taken(matches: str) -> None:
    condition = LogFilter(matches=matches)
    assert not passes(condition, "0" * JUDGED_BYTES) or matches.startswith("((")


def test_a_long_literal_is_no_pattern() -> None:
    assert passes(LogFilter(contains="\N{DESERET CAPITAL LETTER LONG I}" * 256), "\U00010428" * 256)
    assert passes(LogFilter(contains="\\pL{900}" * 32), "\\PL{900}" * 32)


def test_patterns_are_the_callers_and_leave_nothing_behind(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for pattern in ("(", r"\pL{70}"):
        with pytest.raises(BadFilter):
            LogFilter(matches=pattern)
    assert passes(LogFilter(matches="[ab]*a[ab]{900}c"), "ab" * 9000) is False
    assert capfd.readouterr() == ("", "")
    assert sys.modules["re2"]._Regexp._make.cache_info().currsize == 0
