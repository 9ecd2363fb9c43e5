"""Reading a request's JSON body, strictly."""

import json
from typing import Any

import orjson
from aiohttp import web

from app.errors import MALFORMED_REQUEST, UNSUPPORTED_MEDIA_TYPE, ApiError

JsonObject = dict[str, Any]


async def read_object(request: web.Request, *, optional: bool = False) -> JsonObject:
    """Return the body, one JSON object; empty if there is none and it is `optional`.

    RFC 8259, with the choices that it leaves open made: UTF-8 without a byte
    order mark, no name twice in an object, no lone surrogates, no NaN. Raises
    `ApiError`, and what aiohttp raises for a body beyond `client_max_size`.
    """
    try:
        body = await request.read()
    except web.RequestPayloadError:
        raise ApiError(
            MALFORMED_REQUEST,
            "The request body does not match its Transfer-Encoding or Content-Encoding.",
        ) from None
    if not body.strip():
        if optional:
            return {}
        raise ApiError(MALFORMED_REQUEST, "The request has no body. Send one JSON object.")
    _check_media_type(request)
    value = _parse(body)
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


def _parse(body: bytes) -> Any:
    try:
        orjson.loads(body)
        # orjson is strict, but of equal names it takes the last one, and it makes
        # floats of integers beyond 64 bits.
        return json.loads(body, object_pairs_hook=_without_doubles)
    except orjson.JSONDecodeError as error:
        raise ApiError(
            MALFORMED_REQUEST,
            f"The request body is not valid JSON: line {error.lineno}, column {error.colno}: "
            f"{error.msg.rstrip('.')}.",
        ) from None
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
    found: JsonObject = {}
    for name, value in pairs:
        if name in found:
            raise _Doubled(name[:100])
        found[name] = value
    return found
