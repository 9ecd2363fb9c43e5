"""Reading a request's JSON body, strictly."""

import json
from typing import Any

import orjson
from aiohttp import web

from app.api.content import read_content
from app.errors import MALFORMED_REQUEST, UNSUPPORTED_MEDIA_TYPE, ApiError
from app.shortening import shortened

JsonObject = dict[str, Any]

#: Up to this size of a body a name that stands twice is looked for, to be told: that takes
#: many times as long as it takes to read the body.
_MAX_NAMED = 64 * 1024


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
    try:
        doubled = _has_doubles(body, value)
    except orjson.JSONEncodeError:
        raise ApiError(MALFORMED_REQUEST, "The request body is nested too deeply.") from None
    if doubled:
        raise ApiError(
            MALFORMED_REQUEST,
            f"The request body has the duplicate name {_doubled_name(body)!r} in an object."
            if len(body) <= _MAX_NAMED
            else "An object in the request body has a duplicate name. It is named here for bodies"
            f" of up to {_MAX_NAMED // 1024} KiB.",
        )
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


def _has_doubles(body: bytes, value: Any) -> bool:
    """Return whether an object had a name twice, of which `value` has the last.

    An object that lost a member lost its colon: the body then has more of them than the
    value. Raises `orjson.JSONEncodeError` for a value nested deeper than it encodes (254).
    """
    members = _colons(body)
    # A single byte is found much faster than several.
    if b"\\" in body:
        unescaped = body.replace(rb"\\", b"")
        members += sum(map(unescaped.count, (rb"\u003a", rb"\u003A")))
    return members > 1 and members != _colons(orjson.dumps(value))


def _colons(text: bytes) -> int:
    """Count the colons; `bytes.count` takes five times as long where they are few."""
    return len(text) - len(text.replace(b":", b""))


def _doubled_name(body: bytes) -> str:
    """Return a name that an object has twice, cut if it is long; there is one."""
    try:
        json.loads(body, object_pairs_hook=_without_doubles)
    except _Doubled as doubled:
        return doubled.name
    raise AssertionError("no object has a name twice")


class _Doubled(Exception):
    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


def _without_doubles(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise _Doubled(shortened(name, 100))
            names.add(name)
