"""Translation of failed calls into errors for the caller.

The API reference's error table, row by row, in one place.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import structlog
from grpc import StatusCode

from app import errors
from app.bridge.bad_request import field_problems
from app.bridge.contract.breaches import Breach
from app.bridge.error_info import CLOCK_REASONS, reason_of
from app.bridge.sanitise import loggable, presentable
from app.bridge.sent import NOTHING_ASKED, Asked
from app.errors import ApiError, BrokenContract, ErrorKind

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Row:
    """How one gRPC status reaches the caller."""

    kind: ErrorKind
    #: Whether the caller reads the coordinator's detail, as far as it is presentable.
    shown: bool
    #: Whether something broke, rather than that the coordinator refused something.
    failure: bool = False
    #: Seconds after which to try again.
    retry_after: int | None = None


_ROWS: dict[StatusCode, _Row] = {
    StatusCode.NOT_FOUND: _Row(errors.NOT_FOUND, shown=True),
    StatusCode.INVALID_ARGUMENT: _Row(errors.INVALID_ARGUMENT, shown=True),
    StatusCode.OUT_OF_RANGE: _Row(errors.INVALID_ARGUMENT, shown=True),
    StatusCode.PERMISSION_DENIED: _Row(errors.COORDINATOR_PERMISSION_DENIED, shown=True),
    StatusCode.UNAUTHENTICATED: _Row(errors.COORDINATOR_UNAUTHENTICATED, shown=True),
    StatusCode.ALREADY_EXISTS: _Row(errors.ALREADY_EXISTS, shown=True),
    StatusCode.FAILED_PRECONDITION: _Row(errors.FAILED_PRECONDITION, shown=True),
    StatusCode.ABORTED: _Row(errors.FAILED_PRECONDITION, shown=True),
    StatusCode.RESOURCE_EXHAUSTED: _Row(errors.RESOURCE_EXHAUSTED, shown=True, retry_after=5),
    StatusCode.UNIMPLEMENTED: _Row(errors.NOT_IMPLEMENTED, shown=True),
    StatusCode.DEADLINE_EXCEEDED: _Row(errors.COORDINATOR_TIMEOUT, shown=False),
    StatusCode.UNAVAILABLE: _Row(errors.COORDINATOR_UNAVAILABLE, shown=False, retry_after=2),
    # Nobody on this side cancelled: the coordinator is on its way out.
    StatusCode.CANCELLED: _Row(errors.COORDINATOR_UNAVAILABLE, shown=False, retry_after=2),
    StatusCode.INTERNAL: _Row(errors.COORDINATOR_ERROR, shown=True, failure=True),
    StatusCode.UNKNOWN: _Row(errors.COORDINATOR_ERROR, shown=True, failure=True),
    StatusCode.DATA_LOSS: _Row(errors.COORDINATOR_ERROR, shown=True, failure=True),
}

_BROKEN = _Row(errors.COORDINATOR_ERROR, shown=False, failure=True)

#: Where a method's status means something of its own.
_OWN: dict[StatusCode, dict[str, ErrorKind]] = {
    StatusCode.NOT_FOUND: {
        **dict.fromkeys(
            (
                "GetJob",
                "CancelJob",
                "PauseJob",
                "ResumeJob",
                "RetryJob",
                "UpdateJob",
                "DeleteJob",
                "ListCheckpoints",
                "GetJobMetrics",
                "ListJobLogs",
                "WatchJob",
                "GetLogMarks",
                "SearchJobLogs",
            ),
            errors.JOB_NOT_FOUND,
        ),
        **dict.fromkeys(
            ("GetNode", "DrainNode", "EnableNode", "GetDataCache"), errors.NODE_NOT_FOUND
        ),
        "GetEvaluation": errors.EVALUATION_NOT_FOUND,
    },
    # The contract has no other use for it.
    StatusCode.ALREADY_EXISTS: dict.fromkeys(
        ("SubmitJob", "SubmitEvaluation", "RetryJob"), errors.IDEMPOTENCY_KEY_REUSED
    ),
    # Of another revision than the one that was named.
    StatusCode.ABORTED: {"UpdateJob": errors.PRECONDITION_FAILED},
}

#: The calls that carry tokens, which the issuer has made for this or a recent request.
_WITH_TOKENS = frozenset({"SubmitJob", "ValidateData", "GetDataCache"})
_CLOCK_SKEW = _Row(errors.CLOCK_SKEW, shown=False, retry_after=30)

#: What is aborted here can be had again, by the same call: nobody's precondition has failed.
_RESUMABLE = frozenset({"GetLogMarks", "ListJobLogs", "SearchJobLogs", "WatchJob"})

#: gRPC itself says RESOURCE_EXHAUSTED of a message over the limit, where waiting never helps.
_TOO_LARGE = re.compile(
    r"(?P<side>CLIENT|SERVER): (?P<way>Sent|Received) message larger than max|"
    # The whole of it, or one value (over the hard limit); both are found while reading an answer.
    r"(?P<meta>received (?:\w+ )?metadata size exceeds)"
)


def to_api_error(
    error: grpc.aio.AioRpcError,
    *,
    method: str,
    asked: Asked = NOTHING_ASKED,
) -> ApiError:
    """Turn the failure of a call of `method`, such as "GetJob", into the caller's error.

    Where that lacks anything of the coordinator's own words, they go to the
    log event `scaimind_coordinator_error`. What the caller sent may be repeated
    to it; the credentials that went with the call are in neither.
    """
    masker, sent = asked.masker(), asked.sent()
    code, detail = error.code(), error.details() or ""
    row = _row(code, method)
    kind = _kind(code, row, method)
    if code is StatusCode.RESOURCE_EXHAUSTED and (limit := _TOO_LARGE.search(detail)):
        if limit.group("side", "way") not in (("CLIENT", "Sent"), ("SERVER", "Received")):
            return BrokenContract(Breach.TOO_LARGE, loggable(detail))
        kind = errors.PAYLOAD_TOO_LARGE
        row = _Row(kind, shown=False)

    unauthenticated = code is StatusCode.UNAUTHENTICATED
    if unauthenticated and method in _WITH_TOKENS and reason_of(error) in CLOCK_REASONS:
        # Who got the tokens knows whether they were within their time.
        kind, row = errors.CLOCK_SKEW, _CLOCK_SKEW

    message = (
        presentable(detail, from_failure=row.failure, sent=sent, masker=masker)
        if row.shown
        else None
    )
    if row.failure or (detail and message != detail):
        _report(method, code.name, loggable(detail, masker=masker), error=row.failure)
    details = (
        field_problems(error, sent=sent, masker=masker)
        if code is StatusCode.INVALID_ARGUMENT
        else ()
    )
    return ApiError(kind, message, details=details, retry_after=row.retry_after)


def kinds_of(method: str) -> frozenset[ErrorKind]:
    """Return every error that a failed call of `method` can become."""
    return frozenset(
        {errors.COORDINATOR_ERROR, errors.SHUTTING_DOWN}
        | {_kind(code, _row(code, method), method) for code in _ROWS}
        | ({errors.CLOCK_SKEW} if method in _WITH_TOKENS else set())
    )


def _row(code: StatusCode, method: str) -> _Row:
    if code is StatusCode.ABORTED and method in _RESUMABLE:
        code = StatusCode.UNAVAILABLE
    return _ROWS.get(code, _BROKEN)


def _kind(code: StatusCode, row: _Row, method: str) -> ErrorKind:
    return _OWN.get(code, {}).get(method, row.kind)


@contextmanager
def translated_errors(*, method: str, asked: Asked = NOTHING_ASKED) -> Iterator[None]:
    """Let nothing but `ApiError` and a real cancellation out of the calls made within.

    For a unary call, for opening a stream and for iterating over it. Await
    nothing but the call within: a `CancelledError` that does not come from a
    cancellation of the running task is taken for the end of the channel.
    """
    try:
        yield
    except BaseException as error:
        translated = translation_of(error, method=method, asked=asked)
        if translated is None:
            raise
        raise translated from None


def translation_of(
    error: BaseException, *, method: str, asked: Asked = NOTHING_ASKED
) -> ApiError | None:
    """Return what is raised in place of an error of a call; None if that is the error itself.

    Under the conditions of `translated_errors`.
    """
    if isinstance(error, grpc.aio.AioRpcError):
        return to_api_error(error, method=method, asked=asked)
    if isinstance(error, grpc.aio.UsageError):
        # The channel is closed, or was while the call was being made.
        _report(method, "UNAVAILABLE", loggable(str(error)), error=False)
        return ApiError(errors.SHUTTING_DOWN, retry_after=2)
    if isinstance(error, grpc.aio.BaseError):
        return BrokenContract(Breach.UNREADABLE, loggable(f"grpc: {error}"))
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            _report(method, "CANCELLED", "the call was cancelled on this side", error=False)
            return ApiError(errors.SHUTTING_DOWN, retry_after=2)
    return None


def _report(method: str, code: str, detail: str, *, error: bool) -> None:
    emit = log.error if error else log.warning
    emit("scaimind_coordinator_error", method=method, code=code, detail=detail)
