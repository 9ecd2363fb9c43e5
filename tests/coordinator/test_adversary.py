"""Attacks at random find no decision of the scheduler that breaks what it promises."""

import pytest

from scripts.adversary.run import attack


@pytest.mark.parametrize("seed", range(1, 13))
def test_no_attack_breaks_what_the_scheduler_promises(seed: int) -> None:
    found = attack(seed, steps=100)
    assert found.story


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5_000, 5_200, 50))
def test_no_long_attack_breaks_what_the_scheduler_promises(seed: int) -> None:
    for each in range(seed, seed + 50):
        attack(each, steps=80)
