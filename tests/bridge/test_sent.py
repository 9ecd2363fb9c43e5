"""What of a text is the caller's own: whole values and their beginnings, in bounded time."""

import pytest

from app.bridge.sent import Sent

PATH = "scaidrive://acme/" + "data/" * 60 + "it's.jsonl"


@pytest.mark.parametrize("form", [PATH, repr(PATH + '"')[1:-1], PATH[:64], PATH[:256]])
@pytest.mark.parametrize("before", ["", "sca ", "The path "])
def test_a_value_is_found_as_it_is_as_python_quotes_it_and_cut(form: str, before: str) -> None:
    sent = Sent([PATH, PATH + '"'])
    assert sent.spans(f"{before}{form} is not there.") == [(len(before), len(before) + len(form))]


def test_every_place_of_a_value_is_found() -> None:
    assert Sent(["abc", "bcd"]).spans("abcd abc") == [(0, 3), (1, 4), (5, 8)]


def test_the_longest_value_that_a_text_repeats_counts() -> None:
    assert Sent(["/data", "/data/x", "/data/xyz"]).spans("/data/xy") == [(0, 7)]


@pytest.mark.parametrize("text", ["", "ab", "xyz", "ab c"])
def test_nothing_else_is_found(text: str) -> None:
    assert Sent(["abc", "ab"]).spans(text) == []


def test_each_of_many_problems_of_a_large_request_repeats_its_value() -> None:
    values = [f"scaidrive://acme/sets/{number}/{'x' * 480}.jsonl" for number in range(1000)]
    sent = Sent(values)
    for value in values[:100]:
        text = f"{value} is not there: {'y' * 100}"
        assert (0, len(value)) in sent.spans(text)


def test_a_request_that_is_made_for_it_does_not_hold_up_others() -> None:
    sent = Sent([PATH, *("a" * length + "b" for length in range(3, 1000))])
    for _ in range(100):
        sent.spans("a" * 8000)
    assert sent.spans(PATH) == []
