"""The ids of bookmarks: what they hold, their length, and what is none."""

import pytest

from app.hub.selection.places import MAX_JOBS, MAX_LENGTH, LogPlace, Place, digest

LAST = 10**18 - 1


def full() -> Place:
    logs = {
        digest(f"job-{number}"): LogPlace(digest(f"epoch-{number}")[:6], LAST, LAST)
        for number in range(MAX_JOBS)
    }
    return Place(digest("selection"), digest("epoch"), LAST, 2**32 - 1, logs, whole=True)


def test_the_places_of_64_jobs_fit() -> None:
    text = str(full())
    assert len(text) <= MAX_LENGTH
    assert Place.parse(text) == full()


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**32, LAST])
def test_every_number_is_read_as_it_was_written(number: int) -> None:
    logs = {digest("a"): LogPlace(b"epoch1", number, number)}
    place = Place(digest("s"), digest("e"), number, 5, logs, whole=number % 2 == 0)
    assert Place.parse(str(place)) == place


def test_anything_else_is_refused() -> None:
    text = str(full())
    short = str(Place(digest("s"), digest("e"), 1, 2))
    wrong = ["", "e:5", "x" * 40, text[:-3], text + "AAAA", text + "=", "é" * 10, "A" * 4000]
    wrong += [short[:-1], short + "A", short + "====", "B" + short[1:], short.swapcase()]
    for each in wrong:
        if each == short:
            continue
        with pytest.raises(ValueError, match="bookmark"):
            Place.parse(each)


def test_no_text_makes_it_fail_otherwise() -> None:
    text = str(full())
    for at in range(0, len(text), 7):
        for other in "A_z":
            try:
                Place.parse(text[:at] + other + text[at + 1 :])
            except ValueError:
                continue
