"""Exceptions, one class for each family of error codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class ScaiMindError(Exception):
    """Anything that this library raises on purpose."""


class ConnectionFailed(ScaiMindError):
    """The gateway gave no answer: it was not reached, or the connection broke."""


class ProtocolError(ScaiMindError):
    """The answer is not one of a gateway; a proxy in between may have made it."""


class FileChanged(ScaiMindError):
    """A file changed while it was sent or fetched."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One invalid field of a request."""

    field: str
    message: str


class ApiError(ScaiMindError):
    """The gateway refused a request or ended a stream.

    `code` is stable and is what to branch on (docs/errors.md of the gateway).
    `status` is the HTTP status, or 0 where a stream ended with the error.
    `retry_after` is in seconds; None if the gateway did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int = 0,
        request_id: str = "",
        details: Sequence[FieldProblem] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.request_id = request_id
        self.details = tuple(details)
        self.retry_after = retry_after


class InvalidRequest(ApiError):
    """The request has a fault; `details` names the fields."""


class AuthenticationFailed(ApiError):
    """The token is missing, expired, revoked or unknown."""


class PermissionDenied(ApiError):
    """The token does not hold the permission."""


class NotFound(ApiError):
    """The resource does not exist, or belongs to another tenant."""


class Conflict(ApiError):
    """The resource's state does not allow the operation."""


class RateLimited(ApiError):
    """A limit was reached; `retry_after` says when to try again."""


class NotSupported(ApiError):
    """The coordinator does not support the operation."""


class StorageFull(ApiError):
    """The quota is used up, or the disk is full."""


class ServerFailed(ApiError):
    """The gateway or the coordinator failed."""


class Unavailable(ServerFailed):
    """Temporarily without service; trying again later may help."""


class JobDeleted(NotFound):
    """The job was deleted while it was followed."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    413: InvalidRequest,
    414: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    431: InvalidRequest,
    501: NotSupported,
    503: Unavailable,
    504: Unavailable,
    507: StorageFull,
}

_BY_CODE: Mapping[str, type[ApiError]] = {
    "AUTH_EXPIRED": AuthenticationFailed,
    "JOB_DELETED": JobDeleted,
    "JOB_NOT_FOUND": NotFound,
    "COORDINATOR_UNAVAILABLE": Unavailable,
    "COORDINATOR_TIMEOUT": Unavailable,
    "SHUTTING_DOWN": Unavailable,
    "RESOURCE_EXHAUSTED": RateLimited,
    "RATE_LIMITED": RateLimited,
}


def of_answer(status: int, body: object, *, retry_after: float | None, request_id: str) -> ApiError:
    """Return the exception of a refusal. `body` is what its JSON holds, None if it has none."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        kind = _BY_STATUS.get(status, ServerFailed if status >= 500 else InvalidRequest)
        return kind(
            f"The answer has status {status} and no error of the gateway's.",
            code="UNKNOWN",
            status=status,
            request_id=request_id,
            retry_after=retry_after,
        )
    code: str = error["code"]
    kind = _BY_CODE.get(code) or _BY_STATUS.get(
        status, ServerFailed if status >= 500 else InvalidRequest
    )
    meta: Any = body.get("meta") if isinstance(body, dict) else None
    return kind(
        str(error.get("message", code)),
        code=code,
        status=status,
        request_id=request_id or str(meta.get("request_id", "") if isinstance(meta, dict) else ""),
        details=[
            FieldProblem(str(each.get("field", "")), str(each.get("message", "")))
            for each in error.get("details") or ()
            if isinstance(each, dict)
        ],
        retry_after=retry_after,
    )


def of_stream(code: str, message: str) -> ApiError:
    """Return the exception of a stream's last event."""
    return _BY_CODE.get(code, ServerFailed)(message, code=code)
