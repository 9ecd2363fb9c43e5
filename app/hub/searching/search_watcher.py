"""A client that searches a log: its stream, from the first match to `done`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from app.errors import COORDINATOR_UNAVAILABLE, JOB_NOT_FOUND, ApiError
from app.hub.close_reasons import CloseReason
from app.hub.connection import BROKEN, DELETED, Closing, Connect, event_of
from app.hub.core import frames
from app.hub.searching.results import Found
from app.hub.upstream import Position, is_final

log = structlog.get_logger()

SEARCHED = Closing(CloseReason.SEARCH_DONE)


class SearchWatcher:
    """Passes on what is found. Made by `Searches`, which ends its task.

    The id of an event is where to go on: the search continues before its offset. That of
    `done` is 0, so that a client that reconnects by itself is told to stop.
    """

    #: Seconds after which progress is told, whether there is any or not.
    INTERVAL = 0.2

    def __init__(
        self,
        *,
        connect: Connect,
        found: AsyncGenerator[Found, None],
        first: Found,
        job_id: str,
        retry_ms: int,
    ) -> None:
        self.connection = connect(self)
        self._parts = found
        self._newest = first
        self._job_id = job_id
        self._retry_ms = retry_ms
        self._matches = 0
        self._loop = asyncio.get_running_loop()
        #: Set while the client can be sent more.
        self._room = asyncio.Event()
        self._room.set()
        #: Passes on what is found; it ends by itself once the stream is closed.
        self.task: asyncio.Task[None] | None = None

    def start(self, fd: int) -> None:
        """Begin to write to the client's socket, which is the watcher's from now on."""
        connection = self.connection
        connection.open(fd)
        if connection.is_open:
            self.task = self._loop.create_task(self._run(), name=f"hub-search-{self._job_id}")

    def pump(self) -> None:
        """Go on: the client can be sent more."""
        self._room.set()

    def stop(self) -> None:
        """Send nothing more: the final event follows."""
        self._room.set()

    def leave(self) -> None:
        """End the search: the stream is over."""
        self._room.set()
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    async def abandon(self) -> None:
        """End a search that was never started."""
        await self._parts.aclose()

    def final_event(self, closing: Closing) -> bytes:
        """Return `done`, or the error that ended the search."""
        newest = self._newest
        if closing is SEARCHED:
            data = {**self._progress(), "reason": newest.end}
            data["before"] = None if newest.end == "exhausted" else newest.scanned_to
            return frames.event("done", data, Position(newest.epoch, 0))
        return event_of(closing, self._place, "")

    @property
    def _place(self) -> Position:
        return Position(self._newest.epoch, self._newest.scanned_to)

    def _progress(self) -> dict[str, object]:
        newest = self._newest
        return {
            "scanned_to": newest.scanned_to,
            "scanned_bytes": newest.scanned_bytes,
            "matches": self._matches,
        }

    async def _run(self) -> None:
        try:
            async with aclosing(self._parts) as parts:
                await self._pass_on(parts)
        except ApiError as error:
            self.connection.close(_closing_of(error))
        except Exception:
            log.exception("hub_search_crashed", job_id=self._job_id)
            self.connection.close(BROKEN)

    async def _pass_on(self, parts: AsyncGenerator[Found, None]) -> None:
        start = self._start()
        begun = {"scanned_to": start.offset, "scanned_bytes": 0, "matches": 0}
        self._send(frames.event("progress", begun, start, retry_ms=self._retry_ms))
        while True:
            await self._tell(self._newest)
            if not self.connection.is_open:
                return
            if self._newest.end:
                self.connection.close(SEARCHED)
                return
            following = await self._next(parts)
            if following is None:
                raise ApiError(COORDINATOR_UNAVAILABLE)
            self._newest = following

    def _start(self) -> Position:
        """Return where the search began: behind what was found first."""
        newest = self._newest
        first = newest.matches[0].offset + 1 if newest.matches else newest.scanned_to
        return Position(newest.epoch, first)

    async def _tell(self, found: Found) -> None:
        for match in found.matches:
            self._matches += 1
            self._send(frames.match(Position(found.epoch, match.offset), match.data))
            await self._room.wait()
            if not self.connection.is_open:
                return
        if not found.end:
            self._send(frames.event("progress", self._progress(), self._place))
            await self._room.wait()

    async def _next(self, parts: AsyncGenerator[Found, None]) -> Found | None:
        """Return what is found next, and tell of the time until then; None if there is no more."""
        following = self._loop.create_task(_first_of(parts), name=f"hub-search-next-{self._job_id}")
        try:
            while not (await asyncio.wait({following}, timeout=self.INTERVAL))[0]:
                self._send(frames.event("progress", self._progress(), self._place))
                await self._room.wait()
            return await following
        finally:
            if not following.done():
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    def _send(self, data: bytes) -> None:
        if self.connection.is_open and not self.connection.send(data, self._loop.time()):
            self._room.clear()


async def _first_of(parts: AsyncGenerator[Found, None]) -> Found | None:
    return await anext(parts, None)


def _closing_of(error: ApiError) -> Closing:
    if error.kind is JOB_NOT_FOUND:
        return DELETED
    return Closing(CloseReason.UPSTREAM_FAILED, error.kind, retryable=not is_final(error.kind))
