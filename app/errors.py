"""The catalogue of errors that a caller can be given, and the exception that carries one.

Clients branch on `code`: a code, once published, keeps its meaning.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the catalogue."""

    code: str
    #: HTTP status.
    status: int
    #: Whether the same request may succeed later.
    retryable: bool
    #: For people: what happened, and what to do.
    text: str


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field; `field` is its path, such as `data_config.sources.0.path`."""

    field: str
    message: str


class ApiError(Exception):
    """An error for the caller. Whatever it carries may be shown to anyone.

    `message` replaces the kind's own text, `details` are for validation
    errors, `retry_after` is in seconds.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str | None = None,
        *,
        details: Sequence[FieldProblem] = (),
        retry_after: int | None = None,
    ) -> None:
        self.kind = kind
        self.message = kind.text if message is None else message
        self.details = tuple(details)
        self.retry_after = retry_after
        super().__init__(f"{kind.code}: {self.message}")


CATALOGUE: dict[str, ErrorKind] = {}


def _kind(code: str, status: int, text: str, *, retryable: bool = False) -> ErrorKind:
    kind = CATALOGUE[code] = ErrorKind(code, status, retryable, text)
    return kind


# Who calls
AUTH_TOKEN_MISSING = _kind(
    "AUTH_TOKEN_MISSING", 401, "Send a token: 'Authorization: Bearer <token>'."
)
AUTH_TOKEN_INVALID = _kind(
    "AUTH_TOKEN_INVALID", 401, "The token is not valid: it is unknown, revoked or expired."
)
AUTH_EXPIRED = _kind(
    "AUTH_EXPIRED", 401, "The token that opened this stream has expired or was revoked."
)
AUTH_TICKET_INVALID = _kind(
    "AUTH_TICKET_INVALID",
    401,
    "The stream ticket is not valid: it is unknown, used, expired or for another stream. Get a"
    " new one.",
)
AUTHZ_PERMISSION_DENIED = _kind(
    "AUTHZ_PERMISSION_DENIED", 403, "The token lacks the permission that this endpoint needs."
)

# What is asked
MALFORMED_REQUEST = _kind("MALFORMED_REQUEST", 400, "The request cannot be read.")
VALIDATION_ERROR = _kind("VALIDATION_ERROR", 422, "The request has fields that are not valid.")
ROUTE_NOT_FOUND = _kind("ROUTE_NOT_FOUND", 404, "There is no such endpoint.")
METHOD_NOT_ALLOWED = _kind("METHOD_NOT_ALLOWED", 405, "This endpoint does not take that method.")
PAYLOAD_TOO_LARGE = _kind("PAYLOAD_TOO_LARGE", 413, "The request body is too large.")
URI_TOO_LONG = _kind("URI_TOO_LONG", 414, "The request line is too long.")
HEADERS_TOO_LARGE = _kind("HEADERS_TOO_LARGE", 431, "The request's headers are too large.")
UNSUPPORTED_MEDIA_TYPE = _kind(
    "UNSUPPORTED_MEDIA_TYPE",
    415,
    "The request body must be JSON ('Content-Type: application/json').",
)
RATE_LIMITED = _kind(
    "RATE_LIMITED", 429, "Too many requests; wait, then try again.", retryable=True
)

# What the coordinator says
JOB_NOT_FOUND = _kind("JOB_NOT_FOUND", 404, "There is no such job.")
NODE_NOT_FOUND = _kind("NODE_NOT_FOUND", 404, "There is no such node.")
EVALUATION_NOT_FOUND = _kind("EVALUATION_NOT_FOUND", 404, "There is no such evaluation.")
NOT_FOUND = _kind("NOT_FOUND", 404, "There is no such resource.")
INVALID_ARGUMENT = _kind("INVALID_ARGUMENT", 400, "The coordinator refuses an argument.")
COORDINATOR_PERMISSION_DENIED = _kind(
    "COORDINATOR_PERMISSION_DENIED", 403, "The coordinator does not permit this."
)
COORDINATOR_UNAUTHENTICATED = _kind(
    "COORDINATOR_UNAUTHENTICATED", 401, "The coordinator does not accept the caller's identity."
)
ALREADY_EXISTS = _kind("ALREADY_EXISTS", 409, "It exists already.")
FAILED_PRECONDITION = _kind(
    "FAILED_PRECONDITION", 409, "The resource is not in a state that allows this."
)
RESOURCE_EXHAUSTED = _kind(
    "RESOURCE_EXHAUSTED",
    429,
    "The coordinator is at a limit; wait, then try again.",
    retryable=True,
)
NOT_IMPLEMENTED = _kind("NOT_IMPLEMENTED", 501, "This coordinator cannot do that.")
COORDINATOR_TIMEOUT = _kind(
    "COORDINATOR_TIMEOUT", 504, "The coordinator did not answer in time; try again.", retryable=True
)
COORDINATOR_UNAVAILABLE = _kind(
    "COORDINATOR_UNAVAILABLE",
    503,
    "The coordinator cannot be reached at the moment; try again shortly.",
    retryable=True,
)
COORDINATOR_ERROR = _kind(
    "COORDINATOR_ERROR", 500, "The coordinator failed; its operators find the cause in the log."
)

# The job cache
CACHE_UNAVAILABLE = _kind(
    "CACHE_UNAVAILABLE",
    503,
    "The job cache cannot be read at the moment; try again shortly.",
    retryable=True,
)

# The gateway itself
SHUTTING_DOWN = _kind(
    "SHUTTING_DOWN", 503, "This replica is shutting down; connect again.", retryable=True
)
INTERNAL_ERROR = _kind(
    "INTERNAL_ERROR", 500, "The gateway failed; its operators find the cause in the log."
)
AUTH_UNAVAILABLE = _kind(
    "AUTH_UNAVAILABLE",
    503,
    "The token cannot be checked at the moment; try again shortly.",
    retryable=True,
)

# What is asked of ScaiKey for the caller
TOKEN_EXCHANGE_REFUSED = _kind(
    "TOKEN_EXCHANGE_REFUSED",
    502,
    "The identity provider refuses tokens for ScaiDrive or ScaiAtlas; operators find the cause in"
    " the log.",
)
TOKEN_EXCHANGE_INVALID = _kind(
    "TOKEN_EXCHANGE_INVALID",
    502,
    "The identity provider gave an answer that cannot be used; operators find the cause in the"
    " log.",
)
TOKEN_EXCHANGE_UNAVAILABLE = _kind(
    "TOKEN_EXCHANGE_UNAVAILABLE",
    503,
    "Tokens for ScaiDrive and ScaiAtlas cannot be had at the moment; try again shortly.",
    retryable=True,
)

# Idempotency keys
IDEMPOTENCY_KEY_REUSED = _kind(
    "IDEMPOTENCY_KEY_REUSED",
    409,
    "The Idempotency-Key was used for another request; send a new key with a new request.",
)
