"""`Idempotency-Key` on its way to the coordinator, and what becomes of the coordinator's answer."""

import pytest
from grpc import StatusCode

from tests.api.conftest import Gateway
from tests.api.endpoints import ENDPOINTS, Endpoint
from tests.scripted_coordinator import Failure

SUBMISSIONS = [each for each in ENDPOINTS if each.status == 201]

every_submission = pytest.mark.parametrize("endpoint", SUBMISSIONS, ids=str)


def test_jobs_and_evaluations_are_submitted() -> None:
    assert [each.rpc for each in SUBMISSIONS] == ["SubmitJob", "SubmitEvaluation"]


@every_submission
@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"a \\"key\\" with \\\\ in it"', 'a "key" with \\ in it'),
        ("x" * 255, "x" * 255),
        (None, ""),
    ],
)
async def test_it_is_passed_on(
    gateway: Gateway, endpoint: Endpoint, sent: str | None, arrives: str
) -> None:
    headers = {} if sent is None else {"Idempotency-Key": sent}
    response = await gateway.ask(endpoint.method, endpoint.url, json=endpoint.body, headers=headers)
    assert response.status == 201
    [arrived] = gateway.coordinator.requests(endpoint.rpc)
    assert arrived.message.idempotency_key == arrives


@every_submission
@pytest.mark.parametrize("sent", ["", '""', "a key", '"open', "x" * 256, "gr\u00fcn", '"a"; b=1'])
async def test_one_that_is_none_is_refused(gateway: Gateway, endpoint: Endpoint, sent: str) -> None:
    response = await gateway.ask(
        endpoint.method, endpoint.url, json=endpoint.body, headers={"Idempotency-Key": sent}
    )
    assert response.status == 422
    [problem] = response.error["details"]
    assert problem["field"] == "Idempotency-Key"
    assert "1 to 255 printable ASCII characters" in problem["message"]
    assert gateway.coordinator.requests(endpoint.rpc) == []


@every_submission
async def test_another_request_under_the_key(gateway: Gateway, endpoint: Endpoint) -> None:
    detail = "idempotency_key: it was used for another request within the last 24 hours"
    gateway.coordinator.answer(endpoint.rpc, Failure(StatusCode.ALREADY_EXISTS, detail))
    response = await gateway.ask(
        endpoint.method, endpoint.url, json=endpoint.body, headers={"Idempotency-Key": "once"}
    )
    assert response.status == 409
    assert response.error["code"] == "IDEMPOTENCY_KEY_REUSED"
    assert response.error["message"] == detail
