"""The catalogue of errors that callers receive, and the exception that carries one.

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


# Authentication and authorization
AUTH_TOKEN_MISSING = _kind(
    "AUTH_TOKEN_MISSING", 401, "The request has no token. Send 'Authorization: Bearer <token>'."
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
    "The stream ticket is not valid: it is unknown, used, expired or for another stream. Request"
    " a new one.",
)
AUTH_CODE_INVALID = _kind(
    "AUTH_CODE_INVALID",
    401,
    "The code is not valid: it is unknown, used or expired. Run `scaimind console` again.",
)
AUTHZ_PERMISSION_DENIED = _kind(
    "AUTHZ_PERMISSION_DENIED",
    403,
    "The token does not have the permission that this endpoint requires.",
)

CLOCK_SKEW = _kind(
    "CLOCK_SKEW",
    503,
    "The coordinator's clock differs from the identity provider's, so it rejects a token that was"
    " only just issued. Operators can find the cause in the log.",
    retryable=True,
)

# The request
MALFORMED_REQUEST = _kind("MALFORMED_REQUEST", 400, "The request is malformed.")
VALIDATION_ERROR = _kind("VALIDATION_ERROR", 422, "Some fields of the request are not valid.")
ROUTE_NOT_FOUND = _kind("ROUTE_NOT_FOUND", 404, "This endpoint does not exist.")
METHOD_NOT_ALLOWED = _kind("METHOD_NOT_ALLOWED", 405, "This endpoint does not support that method.")
REQUEST_TIMEOUT = _kind(
    "REQUEST_TIMEOUT", 408, "The request did not arrive in time.", retryable=True
)
PAYLOAD_TOO_LARGE = _kind("PAYLOAD_TOO_LARGE", 413, "The request body is too large.")
URI_TOO_LONG = _kind("URI_TOO_LONG", 414, "The request line is too long.")
HEADERS_TOO_LARGE = _kind("HEADERS_TOO_LARGE", 431, "The request's headers are too large.")
UNSUPPORTED_MEDIA_TYPE = _kind(
    "UNSUPPORTED_MEDIA_TYPE",
    415,
    "The request body must be JSON ('Content-Type: application/json'), as it is or packed with"
    " gzip or deflate.",
)
EXPECTATION_FAILED = _kind(
    "EXPECTATION_FAILED",
    417,
    "The request expects something that is not supported. 'Expect' may only be 100-continue.",
)
RATE_LIMITED = _kind("RATE_LIMITED", 429, "Too many requests. Wait and try again.", retryable=True)

# The coordinator
JOB_NOT_FOUND = _kind("JOB_NOT_FOUND", 404, "The job does not exist.")
JOB_DELETED = _kind(
    "JOB_DELETED",
    404,
    "The job was deleted while it was being watched. There is nothing more of it.",
)
NODE_NOT_FOUND = _kind("NODE_NOT_FOUND", 404, "The node does not exist.")
EVALUATION_NOT_FOUND = _kind("EVALUATION_NOT_FOUND", 404, "The evaluation does not exist.")
NOT_FOUND = _kind("NOT_FOUND", 404, "The resource does not exist.")
INVALID_ARGUMENT = _kind("INVALID_ARGUMENT", 400, "The coordinator rejected an argument.")
COORDINATOR_PERMISSION_DENIED = _kind(
    "COORDINATOR_PERMISSION_DENIED", 403, "The coordinator denied permission."
)
COORDINATOR_UNAUTHENTICATED = _kind(
    "COORDINATOR_UNAUTHENTICATED", 401, "The coordinator rejected the caller's identity."
)
ALREADY_EXISTS = _kind("ALREADY_EXISTS", 409, "The resource already exists.")
FAILED_PRECONDITION = _kind(
    "FAILED_PRECONDITION", 409, "The resource is not in a state that allows this operation."
)
PRECONDITION_FAILED = _kind(
    "PRECONDITION_FAILED",
    412,
    "The resource has changed since the version that the request names. Read it again, then decide"
    " anew.",
)
RESOURCE_EXHAUSTED = _kind(
    "RESOURCE_EXHAUSTED",
    429,
    "The coordinator has reached a limit. Wait and try again.",
    retryable=True,
)
NOT_IMPLEMENTED = _kind("NOT_IMPLEMENTED", 501, "The coordinator does not support this operation.")
COORDINATOR_TIMEOUT = _kind(
    "COORDINATOR_TIMEOUT", 504, "The coordinator did not answer in time. Try again.", retryable=True
)
COORDINATOR_UNAVAILABLE = _kind(
    "COORDINATOR_UNAVAILABLE",
    503,
    "The coordinator is temporarily unavailable. Try again shortly.",
    retryable=True,
)
COORDINATOR_ERROR = _kind(
    "COORDINATOR_ERROR", 500, "The coordinator failed. Operators can find the cause in the log."
)

# The drive
FILE_NOT_FOUND = _kind("FILE_NOT_FOUND", 404, "The file or folder does not exist.")
FILE_NAME_INVALID = _kind(
    "FILE_NAME_INVALID",
    400,
    "The path is not valid. Its names are UTF-8 of 1 to 255 bytes, percent-encoded, and neither"
    " '.' nor '..'.",
)
FILE_NOT_SERVED = _kind(
    "FILE_NOT_SERVED",
    403,
    "Only regular files and folders that the gateway may read are served; links are not followed.",
)
FILE_CONFLICT = _kind(
    "FILE_CONFLICT", 409, "What is at the path, or above it, does not allow this operation."
)
RANGE_NOT_SATISFIABLE = _kind(
    "RANGE_NOT_SATISFIABLE", 416, "The file has no byte in the requested range."
)
UPLOAD_NOT_FOUND = _kind(
    "UPLOAD_NOT_FOUND", 404, "The upload does not exist, or it has expired. Start a new one."
)
UPLOAD_OFFSET_CONFLICT = _kind(
    "UPLOAD_OFFSET_CONFLICT",
    409,
    "The upload does not continue at this offset. Ask for the current one with HEAD.",
)
UPLOAD_LOCKED = _kind(
    "UPLOAD_LOCKED",
    423,
    "Another request is writing to this upload. Wait and try again.",
    retryable=True,
)
UPLOAD_CHECKSUM_MISMATCH = _kind(
    "UPLOAD_CHECKSUM_MISMATCH",
    460,
    "The content does not match its Upload-Checksum. It was not stored. Send it again.",
)
QUOTA_EXCEEDED = _kind(
    "QUOTA_EXCEEDED", 507, "Your tenant's quota does not allow this file. Delete files first."
)
DRIVE_FULL = _kind(
    "DRIVE_FULL", 507, "The drive's disk has no room for this file. Ask your operators."
)
DRIVE_BUSY = _kind(
    "DRIVE_BUSY",
    503,
    "The drive has too many transfers, or its disk or store does not respond. Try again shortly.",
    retryable=True,
)
DRIVE_UNAVAILABLE = _kind(
    "DRIVE_UNAVAILABLE",
    503,
    "The store with the files of the drive cannot be used at the moment. Try again later.",
    retryable=True,
)

# The job cache
CACHE_UNAVAILABLE = _kind(
    "CACHE_UNAVAILABLE",
    503,
    "The job cache is temporarily unavailable. Try again shortly.",
    retryable=True,
)

# The gateway itself
SHUTTING_DOWN = _kind(
    "SHUTTING_DOWN", 503, "This replica is shutting down. Reconnect.", retryable=True
)
INTERNAL_ERROR = _kind(
    "INTERNAL_ERROR", 500, "The gateway failed. Operators can find the cause in the log."
)
AUTH_UNAVAILABLE = _kind(
    "AUTH_UNAVAILABLE",
    503,
    "The token cannot be verified at the moment. Try again shortly.",
    retryable=True,
)

# The identity provider
TOKEN_EXCHANGE_REFUSED = _kind(
    "TOKEN_EXCHANGE_REFUSED",
    502,
    "The identity provider refused to issue tokens for ScaiDrive or ScaiAtlas. Operators can find"
    " the cause in the log.",
)
TOKEN_EXCHANGE_INVALID = _kind(
    "TOKEN_EXCHANGE_INVALID",
    502,
    "The identity provider returned an unusable answer. Operators can find the cause in the log.",
)
TOKEN_EXCHANGE_UNAVAILABLE = _kind(
    "TOKEN_EXCHANGE_UNAVAILABLE",
    503,
    "Tokens for ScaiDrive and ScaiAtlas are temporarily unavailable. Try again shortly.",
    retryable=True,
)

# Idempotency keys
IDEMPOTENCY_KEY_REUSED = _kind(
    "IDEMPOTENCY_KEY_REUSED",
    409,
    "The Idempotency-Key was already used for a different request. Use a new key.",
)


class BrokenContract(ApiError):
    """A message of the coordinator that its contract (`proto/`) does not allow.

    Raised by the bridge before anybody else sees the message; nothing of the
    message is used. `breach` names the kind of fault out of a small fixed set,
    for metrics; `problem` says what is wrong and in which field, without the
    field's value. The bridge counts and logs the fault: callers do neither.

    A request passes it on as it is. A stream treats it like any other break:
    everything before the message has been delivered, so the stream is reopened
    behind the last position, and the message does not count as progress. A page
    of a log treats it like one that could not be read: ask again later, never
    at once, and only until the outage limit. Where that is reached, watchers
    are closed with `COORDINATOR_ERROR`.
    """

    def __init__(self, breach: str, problem: str) -> None:
        self.breach = breach
        self.problem = problem
        super().__init__(COORDINATOR_ERROR)
