"""What is cut ends in a mark, and nothing else is changed."""

import re
from pathlib import Path

import pytest

from app.shortening import CUT, quoted, shortened

APP = Path(__file__).parents[1] / "app"
#: A text that is cut by hand, into a message or a log line.
BY_HAND = re.compile(r"\{[^{}]*\[:\d+\][^{}]*\}")


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_what_fits_stays(size: int) -> None:
    assert shortened("x" * size, 10) == "x" * size


def test_what_is_cut_is_as_long_as_it_may_be_and_says_so() -> None:
    assert shortened("x" * 11, 10) == "x" * 9 + CUT
    assert quoted("a\n" * 50, 4) == repr("a\na" + CUT)


def test_no_message_cuts_by_hand() -> None:
    found = {
        f"{path.relative_to(APP)}: {line.strip()}"
        for path in APP.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        # What runs beside a model by itself imports nothing of the coordinator.
        if BY_HAND.search(line) and "digest()" not in line and "evaluator" not in path.parts
    }
    assert found == set()
