"""A connection that answers repeated requests (`app.api.reads.repeated`) beside aiohttp's parser.

What a client sends between two requests, whole and alone, and what is known, is answered at
once, or held while what answers it is read. Everything else is aiohttp's: pieces of requests,
several at once, what is not known or may not be answered. Of its internals are used, beside those
of `app.gateway.connection`, `_request_count`, `_close`, `_force_close` and the clock of idle
connections.
"""

import asyncio
from functools import partial
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

    __slots__ = ("asked", "data", "known", "until")

    def __init__(self, data: bytes, known: Repeated, asked: Asked) -> None:
        self.data = data
        self.known = known
        self.asked = asked
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
                self._answer(data, *found)
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

    def _answer(self, data: bytes, known: Repeated, request_id: str | None) -> None:
        """Answer a request, or have it read, or what answers it."""
        self.came_whole()
        peer = self.peername
        # As `web.Request.remote` has it.
        remote = str(peer[0] if isinstance(peer, list | tuple) else peer)
        asked = known.asked(remote, request_id)
        if known.answer(asked, self.transport):
            self._rest()
            return
        held = self._held = _Held(data, known, asked)
        if known.begin(asked, partial(self._end_hold, held)):
            held.until = self._loop.call_later(_LONGEST_WAIT, self._wait_is_over, held)
        else:
            self._let_go(held)

    def _end_hold(self, held: _Held) -> None:
        if self._held is not held:
            return
        if not held.known.answer(held.asked, self.transport):
            self._let_go(held)
            return
        self._held = None
        if held.until is not None:
            held.until.cancel()
        self._rest()

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
        if self._force_close:
            held.known.left(held.asked)
        else:
            self._asked = held.asked
            self.read(held.data)

    def _rest(self) -> None:
        """Begin to be idle."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _process_keepalive(self) -> None:
        if self._held is not None:
            # With a request at work it is not idle.
            self._rest()
        super()._process_keepalive()
