"""The streams that are open, so that those who read them are told at once when the server stops."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

#: Seconds that calls may take to end which nobody waits for.
_LEAVING: Final = 1.0


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

    async def leave(self) -> None:
        """End those that the server has stopped without: nobody waits for what they say.

        gRPC does not answer the sending of a status that a client's leaving has crossed.
        """
        left = set(self._open)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_LEAVING)

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


async def _turn_away(context: Any) -> NoReturn:
    try:
        await context.abort(
            grpc.StatusCode.UNAVAILABLE, "this coordinator stops; another one may lead"
        )
    except grpc.aio.InternalError:
        # Nothing more can be sent: the caller left just now, which ends a call like this.
        raise asyncio.CancelledError from None
    raise AssertionError("abort() raises")
