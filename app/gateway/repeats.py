"""Requests that may come again: their bytes, and what is known of them."""

import re
from collections import OrderedDict
from typing import TypeAlias

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage

from app.api.reads.repeated import Repeated

#: Bytes of a request that is remembered: a token and what browsers and proxies add.
_LONGEST = 4 * 1024
#: Requests that are remembered, in bytes of all of them.
_MOST_BYTES = 2 * 1024 * 1024
_END = b"\r\n\r\n"
#: A header with an id that `id_of_request` takes.
_OWN_ID = re.compile(rb"\r\nX-Request-ID: ([a-z0-9][a-z0-9._:-]{0,127})\r\n", re.IGNORECASE)

#: A request's bytes without its id, and whether that was cut out of them.
_Key: TypeAlias = tuple[bytes, bool]


class Repeats:
    """Remembers the requests that were answered by shared reads, by the whole of their bytes.

    So whoever sends the same bytes is the same caller, whichever connection they come by: proxies
    spread a client's requests over theirs, and give each an id, which alone may differ. Of what is
    too much, what was used longest ago goes.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, Repeated] = OrderedDict()
        self._bytes = 0

    def find(self, data: bytes) -> tuple[Repeated, str | None] | None:
        """Return what is known of a request, and its id if it brings one of its own."""
        key, request_id = _parted(data)
        known = self._known.get(key)
        if known is None:
            return None
        self._known.move_to_end(key)
        return known, request_id

    def keep(self, data: bytes, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Remember a request that was answered, if it is one that can be."""
        key, _ = _parted(data)
        if key in self._known:
            return
        known = Repeated.of(request, response)
        if known is not None:
            self._known[key] = known
            self._bytes += len(key[0])
            while self._bytes > _MOST_BYTES:
                self._drop(next(iter(self._known)))

    def drop(self, data: bytes) -> None:
        """Forget a request, if it is known."""
        self._drop(_parted(data)[0])

    def _drop(self, key: _Key) -> None:
        if self._known.pop(key, None) is not None:
            self._bytes -= len(key[0])


def _parted(data: bytes) -> tuple[_Key, str | None]:
    """Part a request from its id: another id in its place changes nothing of how it is read."""
    own = _OWN_ID.search(data)
    if own is None:
        return (data, False), None
    return (data[: own.start(1)] + data[own.end(1) :], True), own[1].decode("ascii")


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
