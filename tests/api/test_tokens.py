"""JWTs at the door, and the tokens that go on to the coordinator, over real sockets."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from grpc import StatusCode

from app.auth.settings import AuthSettings
from app.gateway.settings import Settings
from generated.mindcoordinator.v1.errors_pb2 import ErrorInfo, StatusDetail, StatusDetails
from tests.api.conftest import Gateway
from tests.api.endpoints import ENDPOINTS, PREFIX, Endpoint
from tests.auth.scripted_issuer import ISSUER, ScriptedIssuer, claims, minted, refused, signed
from tests.scripted_coordinator import Failure
from tests.secrecy import secret

FORWARDING = {"POST /jobs", "POST /data/validate", "GET /data/cache"}

Start = Callable[[Settings], Awaitable[Gateway]]


@pytest.fixture
async def issuer() -> AsyncIterator[ScriptedIssuer]:
    async with ScriptedIssuer().running() as issuer:
        yield issuer


@pytest.fixture
async def trusting(start: Start, settings: Settings, issuer: ScriptedIssuer) -> Gateway:
    """A gateway that trusts the issuer, and gets its tokens there."""
    auth = AuthSettings(
        issuer=ISSUER,
        jwks_url=issuer.jwks_url,
        token_url=issuer.token_url,
        client_id="gateway",
        client_secret=secret("the-client-secret"),
    )
    return await start(replace(settings, auth=auth))


def token(**others: Any) -> str:
    return signed(claims(time.time(), **others))


async def test_a_jwt_opens_what_its_roles_grant(trusting: Gateway) -> None:
    viewer = token()
    assert (await trusting.ask("GET", f"{PREFIX}/jobs", key=viewer)).status == 200
    denied = await trusting.ask("POST", f"{PREFIX}/jobs/job-1/cancel", key=viewer)
    assert (denied.status, denied.error["code"]) == (403, "AUTHZ_PERMISSION_DENIED")
    (call,) = trusting.coordinator.requests("ListJobs")
    assert call.metadata["x-tenant-id"] == "acme"
    assert call.metadata["x-user-id"] == "ann"


async def test_an_api_key_counts_beside_jwts(trusting: Gateway) -> None:
    assert (await trusting.ask("GET", f"{PREFIX}/jobs")).status == 200


async def test_a_jwt_that_does_not_count_is_challenged(trusting: Gateway) -> None:
    for key in (token(exp=1), token(iss="https://other"), token(tenant_id=None)):
        answer = await trusting.ask("GET", f"{PREFIX}/jobs", key=key)
        assert (answer.status, answer.error["code"]) == (401, "AUTH_TOKEN_INVALID")
        # RFC 6750, 3
        challenge = 'Bearer realm="scaimind", error="invalid_token"'
        assert answer.headers["WWW-Authenticate"] == challenge
    async with trusting.client.get(f"{PREFIX}/jobs") as response:
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="scaimind"'


async def test_without_an_issuer_no_jwt_counts(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", f"{PREFIX}/jobs", key=token())
    assert (answer.status, answer.error["code"]) == (401, "AUTH_TOKEN_INVALID")


async def test_keys_that_cannot_be_fetched_are_nobodys_fault(
    trusting: Gateway, issuer: ScriptedIssuer
) -> None:
    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=500)

    issuer.jwks = broken
    answer = await trusting.ask("GET", f"{PREFIX}/jobs", key=token())
    assert (answer.status, answer.error["code"]) == (503, "AUTH_UNAVAILABLE")
    assert answer.headers["Retry-After"] == "2"
    assert (await trusting.ask("GET", f"{PREFIX}/jobs")).status == 200, "API keys need no issuer"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
async def test_tokens_are_forwarded_where_the_reference_says_so(
    trusting: Gateway, issuer: ScriptedIssuer, endpoint: Endpoint
) -> None:
    issuer.token = lambda form: minted(f"for-{form['audience']}")
    answer = await trusting.exchange(endpoint)
    assert answer.status == endpoint.status
    (call,) = trusting.coordinator.requests(endpoint.rpc)
    forwarded = {name: value for name, value in call.metadata.items() if name.endswith("-token")}
    if str(endpoint) in FORWARDING:
        assert forwarded == {
            "x-scaidrive-token": "for-scaidrive",
            "x-scaiatlas-token": "for-scaiatlas",
        }
        assert {form["subject_token"] for form in issuer.exchanges} == {trusting.keys.admin}
    else:
        assert forwarded == {}
        assert issuer.exchanges == []


def test_the_endpoints_that_forward_are_among_those_that_are_tested() -> None:
    assert {str(endpoint) for endpoint in ENDPOINTS} >= FORWARDING


@pytest.mark.parametrize(
    "endpoint", [each for each in ENDPOINTS if str(each) in FORWARDING], ids=str
)
async def test_without_both_tokens_the_coordinator_is_not_called(
    trusting: Gateway, issuer: ScriptedIssuer, endpoint: Endpoint
) -> None:
    issuer.token = lambda form: (
        refused("invalid_target") if form["audience"] == "scaiatlas" else minted("half")
    )
    answer = await trusting.exchange(endpoint)
    assert (answer.status, answer.error["code"]) == (502, "TOKEN_EXCHANGE_REFUSED")
    issuer.token = lambda _: web.Response(status=503)
    answer = await trusting.exchange(endpoint)
    assert (answer.status, answer.error["code"]) == (503, "TOKEN_EXCHANGE_UNAVAILABLE")
    assert answer.headers["Retry-After"] == "2"
    issuer.token = lambda _: refused("invalid_grant")
    answer = await trusting.exchange(endpoint)
    assert (answer.status, answer.error["code"]) == (401, "AUTH_TOKEN_INVALID")
    assert trusting.coordinator.requests(endpoint.rpc) == []


async def test_a_body_that_does_not_fit_costs_no_exchange(
    trusting: Gateway, issuer: ScriptedIssuer
) -> None:
    answer = await trusting.ask("POST", f"{PREFIX}/jobs", json={"name": 5})
    assert answer.status == 422
    assert issuer.exchanges == []


async def test_a_clock_fault_is_not_the_callers_and_heals_at_once(trusting: Gateway) -> None:
    (submit,) = [each for each in ENDPOINTS if each.rpc == "SubmitJob"]
    info = ErrorInfo(reason="TOKEN_EXPIRED", domain="mindcoordinator.v1")
    detail = StatusDetail(
        type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info.SerializeToString()
    )
    status = StatusDetails(code=16, details=[detail]).SerializeToString()
    trusting.coordinator.answer(
        "SubmitJob",
        Failure(
            StatusCode.UNAUTHENTICATED,
            "the scaidrive token has expired",
            (("grpc-status-details-bin", status),),
        ),
        submit.response,
    )
    refused_, accepted = [await trusting.exchange(submit) for _ in range(2)]
    assert (refused_.status, refused_.error["code"]) == (503, "CLOCK_SKEW")
    assert refused_.headers["Retry-After"] == "30"
    assert "WWW-Authenticate" not in refused_.headers
    assert accepted.status == 201
    one, other = trusting.coordinator.requests("SubmitJob")
    # Tokens that a wrong clock has refused, or made, are not kept.
    assert one.metadata["x-scaidrive-token"] != other.metadata["x-scaidrive-token"]
    assert one.metadata["x-scaiatlas-token"] != other.metadata["x-scaiatlas-token"]
    metrics = (await trusting.ask("GET", "/metrics")).body.decode()
    assert 'scaimind_request_errors_total{code="CLOCK_SKEW"} 1.0' in metrics
