"""One piece of work for all who ask for the same at the same time."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

Q = TypeVar("Q", bound=Hashable)
A = TypeVar("A")


class SingleFlight(Generic[Q, A]):
    """Runs at most one task per question.

    The tasks belong to this object: one goes on when those who asked are
    cancelled, and its failure reaches all of them. Nothing is remembered once
    a task is done.
    """

    def __init__(self) -> None:
        self._running: dict[Q, asyncio.Task[A]] = {}

    def running(self, question: Q) -> "asyncio.Task[A] | None":
        """Return the task that is at work on a question, if there is one."""
        return self._running.get(question)

    def start(
        self,
        question: Q,
        work: Callable[[], Coroutine[Any, Any, A]],
        *,
        name: str,
        context: Context | None = None,
    ) -> "asyncio.Task[A]":
        """Return the task that is at work on a question; start one if there is none.

        Callers must not cancel it: await it through `asyncio.shield`. Unless
        given, its context is a copy of that of whoever asked first.
        """
        task = self._running.get(question)
        if task is None:
            task = asyncio.get_running_loop().create_task(work(), name=name, context=context)
            self._running[question] = task
            task.add_done_callback(partial(self._done, question))
        return task

    def _done(self, question: Q, task: "asyncio.Task[A]") -> None:
        del self._running[question]
        if not task.cancelled():
            # Retrieved: it is no news that a task has failed when all who asked have gone.
            task.exception()

    async def ask(self, question: Q, work: Callable[[], Coroutine[Any, Any, A]], *, name: str) -> A:
        """Return what `work` returns or raises, run once for all who ask meanwhile."""
        return await asyncio.shield(self.start(question, work, name=name))

    async def finish(self) -> None:
        """Wait until all tasks are done, however they end."""
        if self._running:
            await asyncio.wait(list(self._running.values()))

    async def close(self) -> None:
        """Cancel all tasks, and wait for their end."""
        for task in self._running.values():
            task.cancel()
        await self.finish()
