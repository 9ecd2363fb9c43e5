"""Filters of a source: which of its records are kept."""

import json
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..errors import TrainingRefused, shown

_ORDERED: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

Test = Callable[[Any], bool]


def read_filter(column: str, condition: str) -> Test:
    """Return the test of a column's values.

    The condition is the value as text (`en`, `true`, `3`), which may have `=` or `!=` before
    it, or a number behind `>=`, `<=`, `>` or `<`. A record without a value passes none but
    `!=`. Raises TrainingRefused.
    """
    for sign, compare in _ORDERED.items():
        if condition.startswith(sign):
            return _ordered(column, condition, compare, condition.removeprefix(sign))
    if condition.startswith("!="):
        unwanted = condition.removeprefix("!=")
        return lambda value: as_text(value) != unwanted
    wanted = condition.removeprefix("=")
    return lambda value: as_text(value) == wanted


def _ordered(
    column: str, condition: str, compare: Callable[[float, float], bool], text: str
) -> Test:
    limit = _number(text)
    if limit is None:
        raise TrainingRefused(
            f"the filter {shown(column)}: {shown(condition)} compares with no number; for a text"
            f" that begins with a sign write {shown('=' + condition)}"
        )

    def test(value: Any) -> bool:
        number = _number(value)
        return number is not None and compare(number, limit)

    return test


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def as_text(value: Any) -> str | None:
    """Return a value as a filter is compared with it: texts as they are, others as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, default=str)
