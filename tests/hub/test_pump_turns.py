"""Turns of watchers that are behind: all get theirs, a few at a time."""

from collections.abc import Callable

import pytest

from app.hub.core.pump_turns import PumpTurns


class Loop:
    """A loop that is stepped by hand."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], None]] = []

    def turn(self) -> None:
        ready, self.ready = self.ready, []
        for each in ready:
            each()


def test_few_step_in_a_turn_and_nobody_twice_before_all_others() -> None:
    loop, stepped = Loop(), list[int]()
    turns = PumpTurns(lambda step: loop.ready.append(step))

    def step_of(number: int) -> Callable[[], None]:
        def step() -> None:
            stepped.append(number)
            if len(stepped) <= 100:
                turns.call_soon(step)

        return step

    for number in range(50):
        turns.call_soon(step_of(number))
    assert stepped == []
    counts = []
    while loop.ready:
        before = len(stepped)
        loop.turn()
        counts.append(len(stepped) - before)
    assert max(counts) == PumpTurns.EACH
    assert stepped == list(range(50)) * 3


def test_a_step_that_raises_holds_up_nobody() -> None:
    loop, stepped = Loop(), list[str]()
    turns = PumpTurns(lambda step: loop.ready.append(step))

    def fails() -> None:
        raise KeyError

    turns.call_soon(fails)
    turns.call_soon(lambda: stepped.append("next"))
    with pytest.raises(KeyError):
        loop.turn()
    loop.turn()
    assert stepped == ["next"]
    assert loop.ready == []
