"""The platform's envelope around every answer that is JSON."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import hdrs, web

from app.credentials import masked
from app.errors import AUTH_TOKEN_MISSING, ApiError

#: The code of the error that an answer carries, for the log and the audit trail.
ERROR_CODE: web.ResponseKey[str] = web.ResponseKey("error_code", str)

_CHALLENGE = 'Bearer realm="scaimind"'


class JsonAnswer(web.Response):
    """An answer of an operation, encoded: one that `deliver` may write in one piece."""

    def __init__(self, body: bytes, *, status: int = 200) -> None:
        super().__init__(body=body, status=status, content_type="application/json")


class NotModified(web.Response):
    """An answer that the client has what it asked for: one that `deliver` may write, too."""

    def __init__(self) -> None:
        super().__init__(status=304)


def success(data: Any, *, status: int = 200, meta: Mapping[str, Any] | None = None) -> web.Response:
    """Answer with `data`, which is JSON-ready, and what is to be said about it."""
    body = {"data": data} if meta is None else {"data": data, "meta": meta}
    return JsonAnswer(orjson.dumps(body), status=status)


def encoded(data: Any) -> bytes:
    """Encode an answer with `data`, which is JSON-ready, for `success_of`."""
    return orjson.dumps({"data": data})


def success_of(body: bytes) -> web.Response:
    """Answer with what `encoded` has made."""
    return JsonAnswer(body)


def told_time(time: datetime) -> str:
    """Return an aware time as answers have it: RFC 3339 in UTC, to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def failure(error: ApiError, *, request_id: str) -> web.Response:
    """Answer with what went wrong, and with no credential, whoever wrote it into the request."""
    told: dict[str, Any] = {"code": error.kind.code, "message": masked(error.message)}
    if error.details:
        told["details"] = [
            {"field": masked(problem.field), "message": masked(problem.message)}
            for problem in error.details
        ]
    if error.retry_after is not None:
        told["retry_after"] = error.retry_after
    body = {"status": "error", "error": told, "meta": {"request_id": request_id}}
    response = web.Response(
        body=orjson.dumps(body), status=error.kind.status, content_type="application/json"
    )
    response[ERROR_CODE] = error.kind.code
    if error.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = str(error.retry_after)
    if error.kind.status == 401:
        # RFC 9110, 15.5.2 demands a challenge; RFC 6750, 3.1: no error code if no token was sent.
        told_why = "" if error.kind is AUTH_TOKEN_MISSING else ', error="invalid_token"'
        response.headers[hdrs.WWW_AUTHENTICATE] = _CHALLENGE + told_why
    return response
