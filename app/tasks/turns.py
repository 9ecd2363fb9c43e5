"""Work that may wait, shared out so that what arrives meanwhile does not wait for it.

Watchers that are behind step from one piece of a log to the next, and pages of logs are read
piece by piece. Each piece takes some 0.1 ms, and there may be work for seconds.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

R = TypeVar("R")

#: Has something called in the loop's next turn.
NextTurn: TypeAlias = Callable[[Callable[[], None]], Any]


class Turns:
    """Works in some turns of the loop, for a short while in each.

    Between two of them the loop has turns of its own, in which what has arrived gets on: from
    the socket to the task that waits for it, and from there to whom it is for.
    """

    #: Seconds of work in a turn, after which it ends with the piece that is being worked on.
    WORK: Final = 0.0002
    #: Turns of the loop between two of them.
    LEFT: Final = 2

    def __init__(
        self, next_turn: NextTurn | None = None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """By default, of the running loop."""
        self._next_turn = next_turn or asyncio.get_running_loop().call_soon
        self._clock = clock
        self._steps: deque[Callable[[], None]] = deque()
        self._works: deque[tuple[Generator[None, None, Any], asyncio.Future[Any]]] = deque()
        self._scheduled = False

    def call_soon(self, step: Callable[[], None]) -> None:
        """Have a step called in a later turn, behind all that were given before."""
        self._steps.append(step)
        self._schedule()

    async def run(self, work: Generator[None, None, R]) -> R:
        """Return what a generator returns, or raise what it raises: each item is a piece of work.

        Those that are given later begin when it is done.
        """
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._works.append((work, done))
        self._schedule()
        return await done

    def _schedule(self, left: int = 0) -> None:
        if (self._steps or self._works) and not self._scheduled:
            self._scheduled = True
            self._next_turn(partial(self._turn, left))

    def _turn(self, left: int) -> None:
        if left:
            self._next_turn(partial(self._turn, left - 1))
            return
        ends = self._clock() + self.WORK
        try:
            while True:
                if self._steps:
                    self._steps.popleft()()
                if self._works:
                    self._work()
                if not (self._steps or self._works) or self._clock() >= ends:
                    break
        finally:
            self._scheduled = False
            self._schedule(self.LEFT)

    def _work(self) -> None:
        """Do a piece of the first work."""
        work, done = self._works[0]
        if done.cancelled():
            work.close()
        else:
            try:
                next(work)
                return
            except StopIteration as stopped:
                done.set_result(stopped.value)
            except Exception as error:
                done.set_exception(error)
        self._works.popleft()
