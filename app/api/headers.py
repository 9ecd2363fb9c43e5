"""The headers that every answer has, and what web pages of other origins may do (CORS)."""

import random
import time
from collections.abc import Mapping
from email.utils import formatdate

from aiohttp import hdrs
from multidict import CIMultiDict

from app.api.settings import CorsSettings, ServerSettings

REQUEST_ID_HEADER = "X-Request-ID"

#: An answer may have its own in place of these.
_DEFAULTS = {
    hdrs.CACHE_CONTROL: "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

#: Request headers of ours that a page may set beside those that it always may.
_ALLOWED = (
    "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-Match, If-None-Match,"
    " If-Range, Last-Event-ID, Range, Traceparent, Tus-Resumable, Upload-Checksum,"
    " Upload-Defer-Length, Upload-Length, Upload-Metadata, Upload-Offset,"
    " X-HTTP-Method-Override, X-Request-ID"
)
#: Headers of answers that a page may read beside those that it always may.
_EXPOSED = (
    "Accept-Ranges, Age, Content-Disposition, Content-Range, ETag, Location, Retry-After,"
    " Tus-Checksum-Algorithm, Tus-Extension, Tus-Max-Size, Tus-Resumable, Tus-Version,"
    " Upload-Defer-Length, Upload-Expires, Upload-Length, Upload-Metadata, Upload-Offset,"
    " WWW-Authenticate, X-Request-ID"
)


#: Headers that an answer may have of its own for `AnswerHeaders.head`.
_OWN = frozenset({str(hdrs.CONTENT_TYPE), str(hdrs.ETAG)})


def new_request_id() -> str:
    """Return an id for a request that brings none. It is no secret: the system's generator costs
    several times as much."""
    return f"req_{random.getrandbits(96):024x}"


class AnswerHeaders:
    """Completes the headers of answers. CORS follows the Fetch standard (fetch.spec.whatwg.org).

    Cookies and the like are never asked for: a page sends its token itself,
    or a stream ticket.
    """

    def __init__(self, *, server: ServerSettings, cors: CorsSettings) -> None:
        self._origins = frozenset(cors.origins)
        self._max_age = cors.max_age
        self._always: dict[str, str] = {hdrs.SERVER: "scaimind"}
        if server.hsts_max_age:
            self._always["Strict-Transport-Security"] = f"max-age={server.hsts_max_age}"
        #: What all answers have to which `head` is written.
        self._block = "".join(
            f"{name}: {value}\r\n" for name, value in (_DEFAULTS | self._always).items()
        )
        #: The second of the last answer, and how it is written.
        self._date = (0, "")

    def head(
        self,
        status: int,
        reason: str,
        own: Mapping[str, str],
        *,
        length: int | None,
        asked: Mapping[str, str],
        request_id: str,
    ) -> bytes | None:
        """Write the whole head of an answer to an HTTP/1.1 client that is to stay connected.

        It says what `complete` and aiohttp would, in a fraction of their time; None where they
        have to say it: `own` has unusual headers. `asked` are the request's headers; without a
        `length` there is no body.
        """
        told = "" if length is None else f"{hdrs.CONTENT_LENGTH}: {length}\r\n"
        for name, value in own.items():
            if name not in _OWN or not (value.isascii() and value.isprintable()):
                return None
            told += f"{name}: {value}\r\n"
        for name, value in self._cors(asked):
            told += f"{name}: {value}\r\n"
        now = int(time.time())
        second, date = self._date
        if now != second:
            date = formatdate(now, usegmt=True)
            self._date = (now, date)
        return (
            f"HTTP/1.1 {status} {reason}\r\n{told}Date: {date}\r\n"
            f"{self._block}{REQUEST_ID_HEADER}: {request_id}\r\n\r\n"
        ).encode("ascii")

    def complete(
        self, headers: CIMultiDict[str], *, asked: Mapping[str, str], request_id: str
    ) -> None:
        """Add to an answer's headers what is missing; `asked` are the request's headers."""
        for name, value in _DEFAULTS.items():
            headers.setdefault(name, value)
        headers.update(self._always)
        headers[REQUEST_ID_HEADER] = request_id
        for name, value in self._cors(asked):
            headers.add(name, value)

    def preflight(self, *, asked: Mapping[str, str], methods: str) -> dict[str, str]:
        """Return the headers that answer a CORS preflight; none if it is not allowed."""
        if hdrs.ACCESS_CONTROL_REQUEST_METHOD not in asked or self._allowed_origin(asked) is None:
            return {}
        return {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: methods,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _ALLOWED,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(self._max_age),
        }

    def _cors(self, asked: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Return what every answer says to pages of other origins."""
        if not self._origins:
            return ()
        # Also without an Origin: the answer could be kept for one who sends it.
        vary = (str(hdrs.VARY), str(hdrs.ORIGIN))
        origin = self._allowed_origin(asked)
        if origin is None:
            return (vary,)
        return (
            vary,
            (str(hdrs.ACCESS_CONTROL_ALLOW_ORIGIN), origin),
            (str(hdrs.ACCESS_CONTROL_EXPOSE_HEADERS), _EXPOSED),
        )

    def _allowed_origin(self, asked: Mapping[str, str]) -> str | None:
        origin = asked.get(hdrs.ORIGIN)
        if origin is None:
            return None
        if "*" in self._origins:
            return "*"
        return origin if origin in self._origins else None
