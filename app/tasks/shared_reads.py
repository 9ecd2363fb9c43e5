"""One read for all who ask for the same at the same time, or a moment later."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

A = TypeVar("A")


@dataclass(slots=True, eq=False)
class _Flight(Generic[A]):
    task: asyncio.Task[A]
    #: When it was done, in seconds of the loop's clock.
    landed_at: float | None = None


class SharedReads(Generic[A]):
    """Runs one task for identical questions, and keeps its result for `kept` seconds after it.

    Questions have an owner, about whom something may be written: after `forget` nobody is
    given a result that was begun before it. A failure reaches all who wait for it, and is
    not kept. A task goes on when those who asked are cancelled. With 0 seconds nothing is
    shared. Made and closed within one event loop.
    """

    def __init__(self, *, kept: float) -> None:
        self._kept = kept
        self._loop = asyncio.get_running_loop()
        self._flights: dict[str, dict[Hashable, _Flight[A]]] = {}
        #: Those that are at work, forgotten or not.
        self._tasks: set[asyncio.Task[A]] = set()

    @property
    def shares(self) -> bool:
        """Whether anything is shared."""
        return self._kept > 0

    async def ask(
        self, owner: str, question: Hashable, work: Callable[[], Coroutine[Any, Any, A]]
    ) -> A:
        """Return what `work` returns or raises, run once for all who ask meanwhile."""
        if not self._kept:
            return await work()
        return await asyncio.shield(self.read(owner, question, work))

    def at_hand(self, owner: str, question: Hashable) -> A | None:
        """Return the result that `ask` would return without waiting; None if there is none."""
        flight = self._flights.get(owner, {}).get(question)
        if flight is None or flight.landed_at is None or self._is_over(flight):
            return None
        return flight.task.result()

    def read(
        self, owner: str, question: Hashable, work: Callable[[], Coroutine[Any, Any, A]]
    ) -> asyncio.Task[A]:
        """Return what `ask` would wait for. Whoever awaits it does so behind a shield.

        Only where something is shared.
        """
        return self._flight(owner, question, work).task

    def forget(self, owner: str) -> None:
        """Have whoever asks about an owner from now on be answered by a read that begins now."""
        self._flights.pop(owner, None)

    def forget_all(self) -> None:
        """Forget all owners."""
        self._flights.clear()

    async def close(self) -> None:
        """Cancel what is at work, and wait for its end."""
        self.forget_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _flight(
        self, owner: str, question: Hashable, work: Callable[[], Coroutine[Any, Any, A]]
    ) -> _Flight[A]:
        """Return the read that answers a question; it is begun if there is none."""
        flights = self._flights.setdefault(owner, {})
        flight = flights.get(question)
        if flight is None or self._is_over(flight):
            task = self._loop.create_task(work(), name="shared-read")
            self._tasks.add(task)
            flight = flights[question] = _Flight(task)
            task.add_done_callback(partial(self._land, owner, flights, question, flight))
        return flight

    def _is_over(self, flight: _Flight[A]) -> bool:
        # The timer may be late on a busy loop.
        landed_at = flight.landed_at
        return landed_at is not None and self._loop.time() - landed_at >= self._kept

    def _land(
        self,
        owner: str,
        flights: dict[Hashable, _Flight[A]],
        question: Hashable,
        flight: _Flight[A],
        task: asyncio.Task[A],
    ) -> None:
        self._tasks.discard(task)
        flight.landed_at = self._loop.time()
        drop = partial(self._drop, owner, flights, question, flight)
        # Asked for, an exception that nobody waited for is not reported as lost.
        if task.cancelled() or task.exception() is not None:
            drop()
        elif self._flights.get(owner) is flights:
            self._loop.call_later(self._kept, drop)

    def _drop(
        self,
        owner: str,
        flights: dict[Hashable, _Flight[A]],
        question: Hashable,
        flight: _Flight[A],
    ) -> None:
        if flights.get(question) is flight:
            del flights[question]
        if not flights and self._flights.get(owner) is flights:
            del self._flights[owner]
