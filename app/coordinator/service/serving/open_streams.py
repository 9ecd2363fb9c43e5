"""The streams that are open, so that those who read them are told at once when the server stops."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio


class OpenStreams:
    """On one event loop. A unary call is none of them: it is short, and its answer is wanted."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[Any]] = set()
        self._ended = False

    def end(self) -> None:
        """Have all end as UNAVAILABLE, and those that come later."""
        self._ended = True
        for task in self._open:
            task.cancel()

    @asynccontextmanager
    async def one(self, context: Any) -> AsyncIterator[None]:
        """Have the call of this task be one of them while the context lives."""
        task = asyncio.current_task()
        assert task is not None
        if self._ended:
            await _turn_away(context)
        self._open.add(task)
        try:
            yield
        except asyncio.CancelledError:
            # Whoever went away needs no answer.
            if not self._ended or context.cancelled():
                raise
            task.uncancel()
            await _turn_away(context)
        finally:
            self._open.discard(task)

    async def served(self, call: Awaitable[None], context: Any) -> None:
        """Await what serves a stream, as one of them."""
        async with self.one(context):
            await call


async def _turn_away(context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "this coordinator stops; another one may lead")
