"""A connection that answers repeated requests (`app.api.reads.repeated`) beside aiohttp's parser.

What a client sends between two requests, whole and alone, and what is known, is held: for a
moment if others ask just then, so that all are answered together, and while what answers it
is read. Everything else is aiohttp's: pieces of requests, several at once, what is not known
or may not be answered. Of its internals are used, beside those of `app.gateway.connection`,
`_request_count`, `_close`, `_force_close` and the clock of idle connections.
"""

import asyncio
from functools import partial
from time import perf_counter
from typing import Any

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

from app.api.every_request import Asked
from app.api.reads.repeated import Repeated
from app.gateway.repeats import Repeats, is_all_of, may_come_again

#: Seconds for which a request waits here for a read at most: then it waits on aiohttp's way, and
#: gets what becomes of that read, a failure included.
_LONGEST_WAIT = 0.05


class _Held:
    """A request that is known, and not answered yet."""

    __slots__ = ("asked", "came_at", "data", "known", "request_id", "until")

    def __init__(self, data: bytes, known: Repeated, request_id: str | None) -> None:
        self.data = data
        self.known = known
        self.request_id = request_id
        self.came_at = perf_counter()
        self.asked: Asked | None = None
        #: Until when it waits for a read; None if it does not.
        self.until: asyncio.TimerHandle | None = None


class RepeatingHandler(RequestHandler):
    """aiohttp's connection, with a shorter way for requests that come again."""

    __slots__ = ("_asked", "_between", "_held", "_piece", "_repeats")

    def __init__(self, server: web.Server, *, repeats: Repeats, **options: Any) -> None:
        super().__init__(server, **options)
        self._repeats = repeats
        #: The request at work, if it is all that was sent and has the form of one that may come
        #: again.
        self._piece: bytes | None = None
        #: Whether all that the parser was given has been answered.
        self._between = True
        self._held: _Held | None = None
        #: The coming of a request that was held, and is read now.
        self._asked: Asked | None = None

    def data_received(self, data: bytes) -> None:
        """Answer what the client sends, or have it read."""
        if self._held is not None:
            self._end_hold(self._held)
        if self._between and not (self._close or self._force_close):
            found = self._repeats.find(data)
            if found is not None:
                # As little as possible: it is done for each alone.
                self._held = _Held(data, *found)
                if not self._repeats.gather(self):
                    self.answer_held()
                return
        self.read(data)

    def read(self, data: bytes) -> None:
        """Have the parser read what the client sends."""
        waiter = self._waiter
        at_rest = self._between or (waiter is not None and not waiter.done())
        requests = self._request_count
        self._between, self._piece = False, None
        super().data_received(data)
        if at_rest and self._request_count == requests + 1 and may_come_again(data):
            message, body = self._messages[-1]
            if (
                isinstance(message, RawRequestMessage)
                and body is EMPTY_PAYLOAD
                and is_all_of(message, data)
            ):
                self._piece = data

    def came_whole(self) -> None:
        """Note that a request has come that is not read."""
        self._request_count += 1

    def take_asked(self) -> Asked | None:
        """Return what is known of the coming of the request that is read now, once; None if it
        has just come.
        """
        asked, self._asked = self._asked, None
        return asked

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; remember its request if it may come again."""
        response, lost = await super().finish_response(request, resp, start_time)
        piece, self._piece = self._piece, None
        if piece is not None and not lost and response.keep_alive:
            self._between = True
            self._repeats.keep(piece, request, response)
        return response, lost

    def close(self) -> None:
        """Close the connection once all that was asked is answered."""
        if self._held is not None:
            self._end_hold(self._held)
        super().close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note that the client has gone; what it asked is still answered for the record."""
        if self._held is not None:
            self._arrived(self._held)
        super().connection_lost(exc)

    def answer_held(self) -> None:
        """Answer what is held, or have it read, or what answers it."""
        held = self._held
        if held is None or held.until is not None or self._answered(held):
            return
        asked = self._arrived(held)
        if not self._force_close and held.known.begin(asked, partial(self._end_hold, held)):
            held.until = self._loop.call_later(_LONGEST_WAIT, self._wait_is_over, held)
        else:
            self._let_go(held)

    def _arrived(self, held: _Held) -> Asked:
        asked = held.asked
        if asked is None:
            self.came_whole()
            peer = self.peername
            # As `web.Request.remote` has it.
            remote = str(peer[0] if isinstance(peer, list | tuple) else peer)
            asked = held.asked = held.known.asked(held.came_at, remote, held.request_id)
        return asked

    def _end_hold(self, held: _Held) -> None:
        if self._held is held and not self._answered(held):
            self._let_go(held)

    def _wait_is_over(self, held: _Held) -> None:
        # Of whom has gone, it is recorded whether they would have been answered.
        if self._held is held and not self._force_close:
            self._let_go(held)

    def _let_go(self, held: _Held) -> None:
        """Have a request read that was held; if it comes again, too."""
        self._held = None
        if held.until is not None:
            held.until.cancel()
        self._repeats.drop(held.data)
        asked = self._arrived(held)
        if self._force_close:
            held.known.left(asked)
        else:
            self._asked = asked
            self.read(held.data)

    def _answered(self, held: _Held) -> bool:
        if not held.known.answer(self._arrived(held), self.transport):
            return False
        self._held = None
        if held.until is not None:
            held.until.cancel()
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True

    def _process_keepalive(self) -> None:
        if self._held is not None:
            # With a request at work it is not idle.
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()
