"""Which bytes of a file are wanted (RFC 9110, 14)."""

import re
from typing import Final

from aiohttp import hdrs, web

from app.drive.versions import Version, seconds
from app.errors import RANGE_NOT_SATISFIABLE, ApiError

_RANGE: Final = re.compile(r"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII | re.IGNORECASE)
#: More digits than any size has.
_DIGITS: Final = 19


def wanted(request: web.Request, version: Version) -> range | None:
    """Return which bytes are wanted; None is the whole file.

    A range that is not valid, or has several parts, is not heeded. Raises
    `ApiError` (`RANGE_NOT_SATISFIABLE`).
    """
    given = request.headers.getall(hdrs.RANGE, ())
    if request.method != hdrs.METH_GET or len(given) != 1 or not _if_range(request, version):
        return None
    match = _RANGE.fullmatch(given[0])
    if match is None or not 0 < max(len(match[1]), len(match[2])) <= _DIGITS:
        return None
    size = version.size
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        stop = min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= size:
        raise ApiError(RANGE_NOT_SATISFIABLE, f"The file has {size} bytes.")
    return range(start, stop)


def _if_range(request: web.Request, version: Version) -> bool:
    """Whether the client has a part of this very version, or does not ask (RFC 9110, 13.1.5)."""
    value = request.headers.get(hdrs.IF_RANGE)
    if value is None:
        return True
    if value.startswith(('"', "W/")):
        return value == version.tag
    # A date is weak unless it is old; and it has to be exactly the one that was sent.
    return seconds(value) == version.modified_s
