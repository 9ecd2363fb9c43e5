"""The version of a job, as HTTP has it: its revision is a strong entity tag (RFC 9110, 8.8.3)."""

import re
from typing import Final

from aiohttp import hdrs, web

from app.drive.versions import Tags
from app.errors import PRECONDITION_FAILED, ApiError

#: A revision is a positive number of 64 bits; 0 is of a job that is not known as a whole.
_REVISION: Final = re.compile(r'"([1-9][0-9]{0,18})"')
_MOST: Final = 2**63 - 1


def tag_of(revision: int) -> str | None:
    """Return a job's entity tag; None if its coordinator counts no revisions."""
    return f'"{revision}"' if revision else None


def known_tags(request: web.Request) -> Tags | None:
    """Return which versions the client has (If-None-Match). Raises `ApiError`."""
    return _tags(request, hdrs.IF_NONE_MATCH)


def is_current(known: Tags | None, tag: str | None) -> bool:
    """Return whether this version is one that the client has."""
    if known is None or tag is None:
        return False
    return known.listed is None or tag in (each.removeprefix("W/") for each in known.listed)


def asked_revisions(request: web.Request) -> list[int]:
    """Return the revisions that a job may have for the request to count (If-Match).

    Empty means any. Raises `ApiError` if it is none that a job can have.
    """
    asked = _tags(request, hdrs.IF_MATCH)
    if asked is None or asked.listed is None:
        return []
    found = [int(match[1]) for each in asked.listed if (match := _REVISION.fullmatch(each))]
    found = [revision for revision in found if revision <= _MOST]
    if not found:
        raise ApiError(PRECONDITION_FAILED)
    return found


def _tags(request: web.Request, name: str) -> Tags | None:
    values = request.headers.getall(name, ())
    return Tags.parse(", ".join(values)) if values else None
