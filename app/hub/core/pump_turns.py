"""Has watchers that are behind step a few at a time, so that live entries do not wait for all."""

from collections import deque
from collections.abc import Callable
from typing import Any, Final


class PumpTurns:
    """Calls what it is given in the order in which it came, at most `EACH` in a turn of the loop.

    Between two turns the loop looks for what has arrived. Whoever wants to be called
    again comes behind all others.
    """

    #: A step writes up to `slice_bytes`: some 0.1 ms each.
    EACH: Final = 4

    def __init__(self, next_turn: Callable[[Callable[[], None]], Any]) -> None:
        """`next_turn` has something called in the loop's next turn."""
        self._next_turn = next_turn
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def call_soon(self, step: Callable[[], None]) -> None:
        """Have a step called in a later turn of the loop."""
        self._waiting.append(step)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._next_turn(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        try:
            for _ in range(min(self.EACH, len(self._waiting))):
                self._waiting.popleft()()
        finally:
            self._schedule()
