"""Whose fault an UNAUTHENTICATED is: the deployment's, if only the coordinator's clock says so."""

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from structlog.testing import capture_logs

from app import errors
from app.bridge.errors import kinds_of, to_api_error
from app.errors import ApiError
from generated.mindcoordinator.v1.errors_pb2 import ErrorInfo, StatusDetail, StatusDetails

KEY = "grpc-status-details-bin"
DETAIL = "the scaidrive token has expired; ask for a new one"
WITH_TOKENS = ("SubmitJob", "ValidateData", "GetDataCache")


def info(reason: str, *, domain: str = "mindcoordinator.v1", kind: str = "ErrorInfo") -> bytes:
    value = ErrorInfo(reason=reason, domain=domain).SerializeToString()
    detail = StatusDetail(type_url=f"type.googleapis.com/google.rpc.{kind}", value=value)
    return StatusDetails(code=16, details=[detail]).SerializeToString()


def refused(
    *trailers: tuple[str, str | bytes],
    method: str = "SubmitJob",
    status: StatusCode = StatusCode.UNAUTHENTICATED,
) -> ApiError:
    error = AioRpcError(status, Metadata(), Metadata(*trailers), details=DETAIL)
    return to_api_error(error, method=method)


@pytest.mark.parametrize("method", WITH_TOKENS)
@pytest.mark.parametrize("reason", ["TOKEN_EXPIRED", "TOKEN_NOT_YET_VALID"])
def test_a_token_out_of_its_time_is_a_clock_fault(method: str, reason: str) -> None:
    with capture_logs() as events:
        error = refused((KEY, info(reason)), method=method)
    assert error.kind is errors.CLOCK_SKEW
    assert (error.kind.status, error.kind.retryable) == (503, True)
    assert error.retry_after == 30
    assert DETAIL not in error.message
    # What the coordinator said is for operators.
    assert [each["detail"] for each in events] == [DETAIL]


@pytest.mark.parametrize(
    "trailers",
    [
        (),
        ((KEY, info("TOKEN_REVOKED")),),
        ((KEY, info("")),),
        ((KEY, info("TOKEN_EXPIRED", domain="elsewhere")),),
        ((KEY, info("TOKEN_EXPIRED", kind="DebugInfo")),),
        ((KEY, b"\xff\xff"),),
        ((KEY, info("TOKEN_EXPIRED" + "x" * 70_000)),),
        (("reason", "TOKEN_EXPIRED"),),
    ],
)
def test_anything_else_stays_the_callers(trailers: tuple[tuple[str, str | bytes], ...]) -> None:
    error = refused(*trailers)
    assert error.kind is errors.COORDINATOR_UNAUTHENTICATED
    assert error.kind.status == 401


def test_so_does_a_call_without_tokens_and_another_status() -> None:
    skewed = (KEY, info("TOKEN_EXPIRED"))
    assert refused(skewed, method="GetJob").kind is errors.COORDINATOR_UNAUTHENTICATED
    denied = refused(skewed, status=StatusCode.PERMISSION_DENIED)
    assert denied.kind is errors.COORDINATOR_PERMISSION_DENIED


def test_it_is_among_the_errors_of_the_calls_that_carry_tokens() -> None:
    for method in WITH_TOKENS:
        assert errors.CLOCK_SKEW in kinds_of(method)
    assert errors.CLOCK_SKEW not in kinds_of("GetJob")
