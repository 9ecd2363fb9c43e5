"""One client's stream: its socket, its waiting, and how it ends."""

import asyncio
import random
from dataclasses import dataclass

from app.caller import Caller
from app.errors import AUTH_EXPIRED, INTERNAL_ERROR, SHUTTING_DOWN, ErrorKind
from app.hub import frames
from app.hub.reasons import CloseReason
from app.hub.sink import Sink
from app.hub.upstream import Position


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a stream ends, and the error that its client is told, if it is one."""

    reason: CloseReason
    error: ErrorKind | None = None
    retryable: bool = False


GONE = Closing(CloseReason.CLIENT_GONE)
STALLED = Closing(CloseReason.WRITE_TIMEOUT)
ENDED = Closing(CloseReason.JOB_ENDED)
TAIL_SENT = Closing(CloseReason.TAIL_SENT)
EXPIRED = Closing(CloseReason.AUTH_EXPIRED, AUTH_EXPIRED)
DRAINED = Closing(CloseReason.SHUTDOWN, SHUTTING_DOWN, retryable=True)
BROKEN = Closing(CloseReason.INTERNAL_ERROR, INTERNAL_ERROR, retryable=True)


class Connection:
    """What log and metrics watchers have in common. Owned by its watcher's `run`."""

    __slots__ = ("_waiter", "caller", "chunked", "closing", "sink", "written_at")

    #: How long a client that still takes bytes is given to take its last ones, in seconds.
    GRACE = 1.0

    def __init__(self, *, caller: Caller, chunked: bool) -> None:
        self.caller = caller
        self.chunked = chunked
        #: Set once; the first reason counts.
        self.closing: Closing | None = None
        self.sink: Sink | None = None
        #: When something was last written to this one alone, in seconds of the loop's clock.
        self.written_at = 0.0
        self._waiter: asyncio.Future[None] | None = None

    def send(self, payload: bytes) -> bool:
        """Write whole events; whether the kernel took all of it."""
        assert self.sink is not None
        self.written_at = asyncio.get_running_loop().time()
        return self.sink.send(frames.chunk(payload) if self.chunked else payload)

    @property
    def full(self) -> bool:
        """Whether bytes wait for the client to take some."""
        return self.sink is not None and self.sink.unsent > 0

    def keep_alive(self, now: float, interval: float) -> None:
        """Write a keepalive if nothing was written for `interval` seconds."""
        if (
            self.sink is not None
            and self.closing is None
            and now - self.written_at >= interval
            and not self.full
        ):
            self.send(frames.KEEPALIVE)

    def close(self, closing: Closing) -> None:
        """Have the stream end; the watcher's `run` does the rest."""
        if self.closing is None:
            self.closing = closing
            self.wake()

    def wake(self) -> None:
        """Have `wait` return, if it waits."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self, at_most: float | None = None) -> None:
        """Wait to be woken or closed, for `at_most` seconds."""
        if self.closing is not None:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if at_most is None else loop.call_later(at_most, self.wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    async def room(self, write_timeout: float) -> None:
        """Wait until the client can be sent more, and let others have their turn.

        Closes the stream if the client takes nothing for `write_timeout` seconds.
        """
        sink = self.sink
        assert sink is not None
        if sink.closing:
            self.close(GONE)
        elif not sink.unsent:
            await asyncio.sleep(0)
        else:
            drained = asyncio.create_task(sink.drained(), name="hub-drain")
            drained.add_done_callback(lambda _: self.wake())
            try:
                await self._watch_progress(sink, drained, write_timeout)
                if self.closing not in (None, GONE, STALLED) and not drained.done():
                    await asyncio.wait({drained}, timeout=self.GRACE)
            finally:
                if not drained.done():
                    # Not cancelled: aiohttp would hand the cancelled future to
                    # the next one who drains. The abort ends it.
                    sink.abort()
                await drained

    async def _watch_progress(
        self, sink: Sink, drained: "asyncio.Task[None]", write_timeout: float
    ) -> None:
        outstanding = sink.outstanding
        while not drained.done() and self.closing is None:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + write_timeout
            while not drained.done() and self.closing is None and loop.time() < deadline:
                await self.wait(deadline - loop.time())
            if drained.done() or self.closing is not None:
                return
            before, outstanding = outstanding, sink.outstanding
            if outstanding >= before:
                self.close(STALLED)

    def farewell(self, position: Position, status: str, retry_ms: int) -> None:
        """Write the last event, if the client can take it."""
        closing, sink = self.closing, self.sink
        assert closing is not None
        assert sink is not None
        if sink.closing or closing in (GONE, STALLED):
            return
        if closing.error is None:
            self.send(frames.end(position, status))
            return
        retry = None
        if closing is DRAINED:
            # Spread, so that all the watchers of a replica do not come back in one second.
            retry = random.randint(retry_ms // 2, retry_ms * 5)
        self.send(
            frames.error(
                closing.error, retryable=closing.retryable, position=position, retry_ms=retry
            )
        )
