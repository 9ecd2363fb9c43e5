"""Each endpoint: what reaches the coordinator, and what the caller gets."""

from typing import Any

import pytest
from grpc import StatusCode

from tests.api.conftest import API_SECRET, Gateway
from tests.api.endpoints import (
    CACHED,
    DRIVE,
    ENDPOINTS,
    OWN,
    PREFIX,
    STREAMS,
    SUBMISSION,
    SUMMARY_OF_METRICS,
    TICKETS,
    Endpoint,
)
from tests.scripted_coordinator import Failure

every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
with_body = pytest.mark.parametrize(
    "endpoint", [each for each in ENDPOINTS if each.body is not None], ids=str
)


@every_endpoint
async def test_success(gateway: Gateway, endpoint: Endpoint) -> None:
    gateway.coordinator.answer(endpoint.rpc, endpoint.response)

    response = await gateway.ask(
        endpoint.method,
        endpoint.url,
        params=endpoint.query,
        json=endpoint.body,
        headers={"X-Request-ID": "abc-1"},
    )

    assert response.status == endpoint.status
    body = response.json
    assert body.keys() == {"data"}
    assert body["data"] == body["data"] | endpoint.data
    [arrived] = gateway.coordinator.requests(endpoint.rpc)
    assert arrived.message == endpoint.request
    ours = {key: value for key, value in arrived.metadata.items() if key.startswith("x-")}
    assert ours == {
        "x-api-secret": API_SECRET,
        "x-tenant-id": "acme",
        "x-user-id": "ann",
        "x-request-id": "abc-1",
    }
    assert arrived.time_remaining is not None


def test_every_route_is_among_these(gateway: Gateway) -> None:
    routes = {
        (route.method, route.resource.canonical)
        for route in gateway.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    known = {(each.method, PREFIX + each.route) for each in ENDPOINTS}
    known |= {("GET", PREFIX + route) for route in (*STREAMS, *CACHED, SUMMARY_OF_METRICS)}
    known |= {("POST", PREFIX + TICKETS)}
    known |= {("GET", PREFIX + route) for route in ("/openapi.json", "/docs", "/docs/{asset}")}
    known |= {("GET", "/health"), ("GET", "/health/ready"), ("GET", "/metrics")}
    known |= {("GET", "/"), ("GET", "/version")}
    known |= {("GET", "/console"), ("GET", "/console/{path}"), ("GET", "/console-files/{path}")}
    known |= {(method, PREFIX + route) for method, route in OWN}
    known |= {("POST", PREFIX + "/console-sessions")}
    known |= {*DRIVE, ("OPTIONS", "/v1/drive-uploads/")}
    assert routes == known
    assert len(ENDPOINTS) + len(STREAMS) == 28


async def test_the_longest_lists_and_numbers_are_exact(gateway: Gateway) -> None:
    [validate] = [each for each in ENDPOINTS if each.rpc == "ValidateData"]
    gateway.coordinator.answer("ValidateData", validate.response)
    response = await gateway.exchange(validate)
    [validation] = response.json["data"]["validations"]
    assert validation["size_bytes"] == 2**53 + 1


@pytest.mark.parametrize("endpoint", [each for each in ENDPOINTS if each.body_optional], ids=str)
async def test_an_optional_body_may_be_left_out(gateway: Gateway, endpoint: Endpoint) -> None:
    gateway.coordinator.answer(endpoint.rpc, endpoint.response)
    response = await gateway.ask(endpoint.method, endpoint.url)
    assert response.status == endpoint.status
    [arrived] = gateway.coordinator.requests(endpoint.rpc)
    given = {"job_id", "node_id"} | ({"save_checkpoint"} if endpoint.rpc == "PauseJob" else set())
    assert {field.name for field, _ in arrived.message.ListFields()} <= given


@pytest.mark.parametrize(
    "endpoint",
    [each for each in ENDPOINTS if each.body is not None and not each.body_optional],
    ids=str,
)
async def test_a_needed_body_may_not(gateway: Gateway, endpoint: Endpoint) -> None:
    response = await gateway.ask(endpoint.method, endpoint.url)
    assert response.status == 400
    assert response.error["code"] == "MALFORMED_REQUEST"
    assert gateway.coordinator.requests(endpoint.rpc) == []


@every_endpoint
async def test_an_unknown_query_argument_is_refused(gateway: Gateway, endpoint: Endpoint) -> None:
    response = await gateway.ask(
        endpoint.method, endpoint.url, params={"nonsense": "1"}, json=endpoint.body
    )
    assert response.status == 422
    error = response.error
    assert error["code"] == "VALIDATION_ERROR"
    assert [problem["field"] for problem in error["details"]] == ["nonsense"]
    assert gateway.coordinator.requests(endpoint.rpc) == []


@with_body
async def test_an_unknown_field_is_refused(gateway: Gateway, endpoint: Endpoint) -> None:
    response = await gateway.ask(
        endpoint.method, endpoint.url, json={**(endpoint.body or {}), "nonsense": 1}
    )
    assert response.status == 422
    assert [p["field"] for p in response.error["details"]] == ["nonsense"]
    assert gateway.coordinator.requests(endpoint.rpc) == []


async def test_all_problems_are_told_with_their_paths(gateway: Gateway) -> None:
    body = {
        **SUBMISSION,
        "name": 5,
        "data_config": {"sources": [{"format": "jsonl"}]},
        "resource_config": {"gpu_count": "2"},
    }
    response = await gateway.ask("POST", f"{PREFIX}/jobs", json=body)
    assert response.status == 422
    details = response.error["details"]
    assert {problem["field"] for problem in details} == {
        "name",
        "data_config.sources.0.path",
        "resource_config.gpu_count",
    }
    assert all(problem["message"] for problem in details)


@pytest.mark.parametrize(
    ("route", "query", "field"),
    [
        ("/jobs", {"status": "SLEEPING"}, "status.0"),
        ("/jobs", {"page_size": "0"}, "page_size"),
        ("/jobs", {"page_size": "101"}, "page_size"),
        ("/jobs", {"page_size": "3.7"}, "page_size"),
        ("/jobs", [("page_size", "1"), ("page_size", "2")], "page_size"),
        ("/cluster/nodes", {"page_size": "many"}, "page_size"),
        ("/evaluations", {"page_size": "0"}, "page_size"),
        ("/jobs/job-1/metrics", {"max_points": "-1"}, "max_points"),
        ("/jobs/job-1/logs", {"tail": "-1"}, "tail"),
        ("/jobs/job-1/logs", {"level": "LOUD"}, "level"),
        ("/jobs/job-1/logs", {"follow": "perhaps"}, "follow"),
        ("/jobs/job-1/metrics/stream", {"interval": "0"}, "interval"),
        ("/jobs/job-1/metrics/stream", {"interval": "61"}, "interval"),
    ],
)
async def test_a_query_out_of_its_bounds(
    gateway: Gateway, route: str, query: Any, field: str
) -> None:
    response = await gateway.ask("GET", PREFIX + route, params=query)
    assert response.status == 422
    assert [p["field"] for p in response.error["details"]] == [field]


#: The API reference's error table: status, code, whether the coordinator's words are passed on.
ROWS = {
    StatusCode.NOT_FOUND: (404, None, True),
    StatusCode.INVALID_ARGUMENT: (400, "INVALID_ARGUMENT", True),
    StatusCode.PERMISSION_DENIED: (403, "COORDINATOR_PERMISSION_DENIED", True),
    StatusCode.UNAUTHENTICATED: (401, "COORDINATOR_UNAUTHENTICATED", True),
    StatusCode.ALREADY_EXISTS: (409, None, True),
    StatusCode.FAILED_PRECONDITION: (409, "FAILED_PRECONDITION", True),
    StatusCode.RESOURCE_EXHAUSTED: (429, "RESOURCE_EXHAUSTED", True),
    StatusCode.DEADLINE_EXCEEDED: (504, "COORDINATOR_TIMEOUT", False),
    StatusCode.UNAVAILABLE: (503, "COORDINATOR_UNAVAILABLE", False),
    StatusCode.INTERNAL: (500, "COORDINATOR_ERROR", None),
    StatusCode.UNKNOWN: (500, "COORDINATOR_ERROR", None),
}
NOT_FOUND_CODES = {
    "GetJob": "JOB_NOT_FOUND",
    "CancelJob": "JOB_NOT_FOUND",
    "PauseJob": "JOB_NOT_FOUND",
    "ResumeJob": "JOB_NOT_FOUND",
    "RetryJob": "JOB_NOT_FOUND",
    "UpdateJob": "JOB_NOT_FOUND",
    "DeleteJob": "JOB_NOT_FOUND",
    "GetJobMetrics": "JOB_NOT_FOUND",
    "GetNode": "NODE_NOT_FOUND",
    "DrainNode": "NODE_NOT_FOUND",
    "EnableNode": "NODE_NOT_FOUND",
    "GetEvaluation": "EVALUATION_NOT_FOUND",
}
TRACEBACK = 'Traceback (most recent call last):\n  File "/srv/mind/db.py", line 3, in f\nKeyError'


@every_endpoint
@pytest.mark.parametrize("code", ROWS, ids=lambda code: code.name)
async def test_each_row_of_the_error_table(
    gateway: Gateway, endpoint: Endpoint, code: StatusCode
) -> None:
    status, ours, passed_on = ROWS[code]
    detail = "the reason, in the coordinator's words" if passed_on is not None else TRACEBACK
    gateway.coordinator.answer(endpoint.rpc, Failure(code, detail))

    response = await gateway.exchange(endpoint)

    assert response.status == status
    error = response.error
    if ours is not None:
        assert error["code"] == ours
    elif code is StatusCode.ALREADY_EXISTS:
        # Of a submission, it is an idempotency key that exists.
        submits = endpoint.rpc in ("SubmitJob", "SubmitEvaluation", "RetryJob")
        assert error["code"] == ("IDEMPOTENCY_KEY_REUSED" if submits else "ALREADY_EXISTS")
    elif endpoint.rpc in NOT_FOUND_CODES:
        assert error["code"] == NOT_FOUND_CODES[endpoint.rpc]
    else:
        assert error["code"].endswith("NOT_FOUND")
    assert (error["message"] == detail) is bool(passed_on)
    assert b"Traceback" not in response.body
    if status in (429, 503):
        assert response.headers["Retry-After"] == str(error["retry_after"])
    if status == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")


with_an_id = pytest.mark.parametrize(
    "endpoint", [each for each in ENDPOINTS if "{" in each.route], ids=str
)


@with_an_id
@pytest.mark.parametrize(
    ("in_path", "asked"),
    [
        ("gpu@rack1", "gpu@rack1"),
        ("rack1%2Fnode3", "rack1/node3"),
        ("..%2fetc", "../etc"),
        ("a=b", "a=b"),
        ("_n", "_n"),
        ("-", "-"),
        ("a%20b+c", "a b+c"),
        ("100%25%2541;x", "100%%41;x"),
        ("%e2%82%ac", "\N{EURO SIGN}"),
        ("x" * 256, "x" * 256),
    ],
    ids=lambda value: value[:20],
)
async def test_any_other_id_is_asked_for_as_it_is(
    gateway: Gateway, endpoint: Endpoint, in_path: str, asked: str
) -> None:
    gateway.coordinator.answer(endpoint.rpc, Failure(StatusCode.NOT_FOUND, ""))
    path = endpoint.url
    for possible in ("job-1", "node-1", "eval-1"):
        path = path.replace(possible, in_path)

    response = await gateway.ask(
        endpoint.method,
        path,
        params=endpoint.query,
        json=endpoint.body,
    )

    assert response.status == 404
    [request] = gateway.coordinator.requests(endpoint.rpc)
    names = ("job_id", "node_id", "evaluation_id")
    assert asked in [getattr(request.message, name, "") for name in names]


@with_an_id
@pytest.mark.parametrize("impossible", ["%00", "a%0Ab", "%7F", "%c2%85", "x" * 257])
async def test_an_impossible_id_is_like_an_unknown_one(
    gateway: Gateway, endpoint: Endpoint, impossible: str
) -> None:
    gateway.coordinator.answer(endpoint.rpc, Failure(StatusCode.NOT_FOUND, ""))
    unknown = await gateway.exchange(endpoint)
    path = endpoint.url
    for possible in ("job-1", "node-1", "eval-1"):
        path = path.replace(possible, impossible)

    response = await gateway.ask(endpoint.method, path, params=endpoint.query, json=endpoint.body)

    assert (response.status, response.error) == (404, unknown.error)
    assert len(gateway.coordinator.requests(endpoint.rpc)) == 1
