"""Reading a request's JSON body, strictly."""

import json
from typing import Any

import orjson
from aiohttp import web

from app.api.content import read_content
from app.errors import MALFORMED_REQUEST, UNSUPPORTED_MEDIA_TYPE, ApiError
from app.shortening import shortened

JsonObject = dict[str, Any]

#: Up to here, colons are looked for one by one.
_FEW_COLONS = 1000


async def read_object(request: web.Request, *, optional: bool = False) -> JsonObject:
    """Return the body, one JSON object; empty if there is none and it is `optional`.

    RFC 8259, with the choices that it leaves open made: UTF-8 without a byte
    order mark, no name twice in an object, no lone surrogates, no NaN. Integers
    beyond 64 bits are floats. Raises `ApiError`.
    """
    body = await read_content(request)
    if not body or body.isspace():
        if optional:
            return {}
        raise ApiError(MALFORMED_REQUEST, "The request has no body. Send one JSON object.")
    _check_media_type(request)
    return decode_object(body)


def decode_object(body: bytes) -> JsonObject:
    """Return the JSON object that a body is. Raises `ApiError`."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(
            MALFORMED_REQUEST,
            f"The request body is not valid JSON: line {error.lineno}, column {error.colno}: "
            f"{error.msg.rstrip('.')}.",
        ) from None
    if _may_have_doubles(body, value):
        _refuse_doubles(body)
    if not isinstance(value, dict):
        raise ApiError(MALFORMED_REQUEST, "The request body must be one JSON object: {...}.")
    return value


def _check_media_type(request: web.Request) -> None:
    kind = request.content_type
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise ApiError(UNSUPPORTED_MEDIA_TYPE)
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise ApiError(UNSUPPORTED_MEDIA_TYPE, "The request body must be JSON in UTF-8.")


def _may_have_doubles(body: bytes, value: Any) -> bool:
    """Return whether an object may have had a name twice, of which `value` has the last.

    An object that lost a member lost its colon: unless there are escapes that
    stand for colons, the body then has more of them than the value.
    """
    # A single byte is found much faster than several.
    if b"\\" in body and b"\\u003" in body:
        return True
    members = _colons(body)
    try:
        return members > 1 and members != _colons(orjson.dumps(value))
    except orjson.JSONEncodeError:
        return True  # nested deeper than it encodes


def _colons(text: bytes) -> int:
    """Count the colons: fast where there are few, among long strings, as where there are many."""
    found, place = 0, text.find(b":")
    while place >= 0:
        found += 1
        if found == _FEW_COLONS:
            return found + text.count(b":", place + 1)
        place = text.find(b":", place + 1)
    return found


def _refuse_doubles(body: bytes) -> None:
    """Raise `ApiError` if an object has a name twice."""
    try:
        json.loads(body, object_pairs_hook=_without_doubles)
    except _Doubled as doubled:
        raise ApiError(
            MALFORMED_REQUEST,
            f"The request body has the duplicate name {doubled.name!r} in an object.",
        ) from None
    except RecursionError:
        raise ApiError(MALFORMED_REQUEST, "The request body is nested too deeply.") from None


class _Doubled(Exception):
    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


def _without_doubles(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise _Doubled(shortened(name, 100))
            names.add(name)
    return found
