"""Attacks at random find no decision of the scheduler that breaks what it promises."""

import pytest

from scripts.adversary.run import attack


@pytest.mark.parametrize("seed", range(1, 13))
def test_no_attack_breaks_what_the_scheduler_promises(seed: int) -> None:
    found = attack(seed, steps=100)
    assert found.story


@pytest.mark.parametrize(
    "seed",
    [
        5_137,  # a job with a promise did not start, though what it asks for was free elsewhere
        10_053,  # somebody ahead started elsewhere than was counted when victims were chosen
        10_274,  # a newer job overtook a promise, and the loser was looked at as if it had it
        101_329,  # one that a limit kept waiting held up others for a limit that it did not reach
        200_921,  # a start was left to the next event
        600_118,  # reservations were made before another job had been placed
        2_000_509,  # two with promises moved, each to room that the other one's promise took
        1_300_055,  # a job took GPUs of the one kind that somebody ahead can use
        2_200_130,  # one behind started before one that a limit held up until the same look
        2_400_016,  # a start was left to the next event after a promise was kept
    ],
)
def test_no_attack_that_broke_something_does_so_again(seed: int) -> None:
    attack(seed, steps=80)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5_000, 5_200, 50))
def test_no_long_attack_breaks_what_the_scheduler_promises(seed: int) -> None:
    for each in range(seed, seed + 50):
        attack(each, steps=80)
