"""Pauses double up to a bound, and begin again after a success."""

import pytest

from app.tasks.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_begin_again_after_a_reset() -> None:
    backoff = Backoff(shortest=0.5, longest=3, jitter=0)
    assert [backoff.pause() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    backoff.reset()
    assert backoff.pause() == 0.5


def test_jitter_only_shortens_a_pause() -> None:
    backoff = Backoff(shortest=2, longest=2, jitter=0.25)
    assert all(1.5 <= backoff.pause() <= 2 for _ in range(1000))


def test_ten_thousand_failures_end_in_the_longest_pause() -> None:
    backoff = Backoff(shortest=0.001, longest=10, jitter=0)
    pauses = [backoff.pause() for _ in range(10_000)]
    assert pauses[-1] == pytest.approx(10)


def test_the_longest_binds_the_shortest() -> None:
    assert Backoff(shortest=5, longest=1, jitter=0).pause() == 1
