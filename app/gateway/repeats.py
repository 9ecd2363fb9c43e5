"""Requests that may come again: their bytes, and what is known of them."""

import asyncio
import math
from collections import OrderedDict
from typing import Protocol

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage

from app.api.reads.repeated import Repeated

#: Bytes of a request that is remembered: a token and what browsers and proxies add.
_LONGEST = 4 * 1024
#: Requests that are remembered, in bytes of all of them.
_MOST_BYTES = 2 * 1024 * 1024
#: Seconds within which requests are gathered.
_MOMENT = 0.02
#: Requests that are answered together at most: for so long nobody else is served.
_AT_ONCE = 16
_END = b"\r\n\r\n"


class Holder(Protocol):
    """A connection that holds a request."""

    def answer_held(self) -> None:
        """Answer what is held, unless that was done."""


class Repeats:
    """Remembers the requests that were answered by shared reads, by the whole of their bytes.

    So whoever sends the same bytes is the same caller, whichever connection they come by: proxies
    spread a client's requests over theirs. Of what is too much, what was used longest ago goes.

    Requests that come soon after each other are answered together: each alone would find the
    processor's caches full of other things, and cost several times as much.
    """

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._known: OrderedDict[bytes, Repeated] = OrderedDict()
        self._bytes = 0
        #: When the last one came, by the loop's clock.
        self._last = -math.inf
        self._last_by: Holder | None = None
        self._gathered: list[Holder] = []
        #: When they are answered at the latest.
        self._due: asyncio.TimerHandle | None = None

    def find(self, data: bytes) -> Repeated | None:
        """Return what is known of a request."""
        known = self._known.get(data)
        if known is not None:
            self._known.move_to_end(data)
        return known

    def keep(self, data: bytes, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Remember a request that was answered, if it is one that can be."""
        if data in self._known:
            return
        known = Repeated.of(request, response)
        if known is not None:
            self._known[data] = known
            self._bytes += len(data)
            while self._bytes > _MOST_BYTES:
                self.drop(next(iter(self._known)))

    def drop(self, data: bytes) -> None:
        """Forget a request, if it is known."""
        if self._known.pop(data, None) is not None:
            self._bytes -= len(data)

    def gather(self, holder: Holder) -> bool:
        """Have what a connection holds answered together with others, within a moment; False if
        nobody else has asked in the last one.
        """
        now = self._loop.time()
        last, by, self._last, self._last_by = self._last, self._last_by, now, holder
        if now - last > _MOMENT or by is holder:
            return False
        self._gathered.append(holder)
        if len(self._gathered) >= _AT_ONCE:
            self._answer_gathered()
        elif self._due is None:
            self._due = self._loop.call_later(_MOMENT, self._answer_gathered)
        return True

    def _answer_gathered(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        gathered, self._gathered = self._gathered, []
        for holder in gathered:
            holder.answer_held()


def may_come_again(data: bytes) -> bool:
    """Return whether a piece of what a client sends has the form of one request without a body."""
    return (
        len(data) <= _LONGEST
        and data.startswith(b"GET ")
        and data.find(_END) == len(data) - len(_END)
    )


def is_all_of(message: RawRequestMessage, data: bytes) -> bool:
    """Return whether a request that was read from a piece is the whole piece, and nothing else.

    If something had been before it, such as the beginning of another request, or if a part of it
    had been the end of a body, then the first line or the number of lines would differ.
    """
    line = f"GET {message.path} HTTP/1.1\r\n".encode("utf-8", "surrogateescape")
    return (
        message.method == "GET"
        and data.startswith(line)
        and data.count(b"\r\n") == len(message.raw_headers) + 2
        and not message.upgrade
        and not message.chunked
    )
