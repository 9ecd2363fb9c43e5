"""The fields that a coordinator names, as a caller reads them."""

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from app import errors
from app.bridge.errors import to_api_error
from app.bridge.sent import Asked
from app.errors import ApiError, FieldProblem
from generated.mindcoordinator.v1.errors_pb2 import BadRequest, StatusDetail, StatusDetails
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

KEY = "grpc-status-details-bin"
OTHERS = [each for each in StatusCode if each.name not in ("OK", "INVALID_ARGUMENT")]


def trailer(*violations: tuple[str, str], kind: str = "BadRequest") -> bytes:
    found = BadRequest()
    for field, description in violations:
        found.field_violations.add(field=field, description=description)
    url = f"type.googleapis.com/google.rpc.{kind}"
    details = [
        StatusDetail(type_url="type.googleapis.com/google.rpc.DebugInfo", value=b"\xff"),
        StatusDetail(type_url=url, value=found.SerializeToString()),
    ]
    return StatusDetails(code=3, details=details).SerializeToString()


def refused(
    value: bytes, *, status: StatusCode = StatusCode.INVALID_ARGUMENT, asked: Asked | None = None
) -> ApiError:
    error = AioRpcError(status, Metadata(), Metadata((KEY, value)), details="a: wrong")
    return to_api_error(error, method="SubmitJob", asked=asked or Asked())


def test_each_field_is_a_detail() -> None:
    error = refused(trailer(("name", "it is empty"), ("data_config.sources.0.path", "what?")))
    assert error.kind is errors.INVALID_ARGUMENT
    assert error.message == "a: wrong"
    assert error.details == (
        FieldProblem("name", "it is empty"),
        FieldProblem("data_config.sources.0.path", "what?"),
    )


def test_paths_have_one_form() -> None:
    error = refused(trailer(("data_config.sources[12].path", "what?"), ("", "all of it")))
    assert [each.field for each in error.details] == ["data_config.sources.12.path", "request"]


@pytest.mark.parametrize(
    "status",
    [each for each in StatusCode if each not in (StatusCode.OK, StatusCode.INVALID_ARGUMENT)],
)
def test_other_statuses_have_no_details(status: StatusCode) -> None:
    assert refused(trailer(("name", "it is empty")), status=status).details == ()


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"\xff\xff\xff", b"x" * 100_000, trailer(("a", "b"), kind="QuotaFailure")),
        StatusDetails(
            details=[StatusDetail(type_url="a/google.rpc.BadRequest", value=b"\xff")]
        ).SerializeToString(),
    ],
)
def test_what_cannot_be_read_is_left_out(value: bytes) -> None:
    error = refused(value)
    assert error.message == "a: wrong"
    assert error.details == ()


def test_what_a_caller_may_not_read_is_hidden() -> None:
    asked = Asked(SubmitJobRequest(name="/srv/own/train.py"), ("the-api-secret",))
    error = refused(
        trailer(
            ("a", "KeyError: 'tenant_id'"),
            ("b", "DB_PASSWORD=hunter2-Zebra"),
            ("c", "not the-api-secret"),
            ("d", "/srv/own/train.py is not there"),
            ("10.0.0.7:5432", "down"),
            ("line\nbreak", "x" * 2_000),
        ),
        asked=asked,
    )
    hidden = "It is not valid."
    assert [(each.field, each.message) for each in error.details] == [
        ("a", hidden),
        ("b", hidden),
        ("c", hidden),
        ("d", "/srv/own/train.py is not there"),
        ("request", "down"),
        ("request", "x" * 999 + "…"),
    ]


def test_their_number_is_bounded() -> None:
    *told, last = refused(trailer(*((f"f{at}", "x") for at in range(500)))).details
    assert len(told) == 100
    assert last == FieldProblem("request", "… and 400 more")
