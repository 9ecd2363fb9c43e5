"""What changes something leaves one event: who, what, on what, with what outcome."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
import structlog
from grpc import StatusCode

from app.api.endpoint import action_of
from app.api.settings import LimitsSettings
from app.gateway.settings import Settings
from app.shortening import CUT
from app.telemetry.audit import Action
from tests.api.conftest import Gateway
from tests.api.endpoints import ENDPOINTS, PREFIX, SUBMISSION, TICKETS, Endpoint
from tests.scripted_coordinator import Failure

CHANGING = [each for each in ENDPOINTS if each.method != "GET"]
JOBS = f"{PREFIX}/jobs"
JSON = {"Content-Type": "application/json"}

every_change = pytest.mark.parametrize("endpoint", CHANGING, ids=str)


@pytest.fixture
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as captured:
        yield captured


def audited(events: list[Any]) -> dict[str, Any]:
    """The one audit event."""
    (event,) = [each for each in events if each["event"] == "audit"]
    return dict(event)


def test_every_route_that_is_no_read_has_an_action(gateway: Gateway) -> None:
    actions = []
    for route in gateway.app.router.routes():
        action = action_of(route.handler)
        assert (action is None) == (route.method in ("GET", "HEAD", "OPTIONS")), route
        actions += [] if action is None else [action]
    # POST stands for PATCH where X-HTTP-Method-Override says so.
    assert len(set(actions)) == len(actions) - 1 == len(CHANGING) + 9


@every_change
async def test_what_is_done_is_written_once(
    gateway: Gateway, events: list[Any], endpoint: Endpoint
) -> None:
    gateway.coordinator.answer(endpoint.rpc, endpoint.response)
    answer = await gateway.exchange(endpoint)
    event = audited(events)
    assert event["outcome"] == "ok"
    assert event["status"] == answer.status == endpoint.status
    assert event["action"] in set(Action)
    assert (event["actor"], event["tenant_id"], event["user_id"]) == ("user", "acme", "ann")
    assert event["credential_id"].startswith("key_")
    assert event["request_id"] == answer.headers["X-Request-ID"]
    assert len(event["trace_id"]) == 32
    assert event["log_level"] == "info"
    if event["action"] != "data.validate":
        assert event["target_id"]
    assert event["target_type"] in ("job", "node", "evaluation", None)


async def test_what_is_made_is_named(gateway: Gateway, events: list[Any]) -> None:
    (submit,) = [each for each in CHANGING if each.rpc == "SubmitJob"]
    gateway.coordinator.answer("SubmitJob", submit.response)
    made = (await gateway.exchange(submit)).json["data"]["job_id"]
    assert (audited(events)["target_type"], audited(events)["target_id"]) == ("job", made)


async def test_a_retry_names_both_jobs(gateway: Gateway, events: list[Any]) -> None:
    (retry,) = [each for each in CHANGING if each.rpc == "RetryJob"]
    gateway.coordinator.answer("RetryJob", retry.response)
    made = (await gateway.exchange(retry)).json["data"]
    assert audited(events)["target_id"] == retry.path.split("/")[2] == made["parent_job_id"]
    assert audited(events)["created_id"] == made["job_id"] != made["parent_job_id"]


async def test_a_ticket_is_a_change_of_its_job(gateway: Gateway, events: list[Any]) -> None:
    body = {"job_id": "job-1", "kind": "logs"}
    answer = await gateway.ask("POST", PREFIX + TICKETS, json=body)
    event = audited(events)
    assert event["action"] == "stream_ticket.create"
    assert (event["target_type"], event["target_id"]) == ("job", "job-1")
    assert answer.json["data"]["ticket"] not in str(events)


@every_change
async def test_nobody_may_do_it_without_a_token(
    gateway: Gateway, events: list[Any], endpoint: Endpoint
) -> None:
    await gateway.ask(
        endpoint.method, endpoint.url, json=endpoint.body, headers={"Authorization": ""}
    )
    event = audited(events)
    assert (event["outcome"], event["status"]) == ("AUTH_TOKEN_MISSING", 401)
    assert (event["tenant_id"], event["user_id"], event["credential_id"]) == (None, None, None)


@every_change
async def test_who_may_not_do_it_is_named(
    gateway: Gateway, events: list[Any], endpoint: Endpoint
) -> None:
    await gateway.exchange(endpoint, key=gateway.keys.by_permission["scaimind:view"])
    event = audited(events)
    assert (event["outcome"], event["status"]) == ("AUTHZ_PERMISSION_DENIED", 403)
    assert (event["tenant_id"], event["user_id"]) == ("acme", "ann")


@pytest.mark.parametrize(
    ("path", "options", "outcome"),
    [
        ("/jobs", {"data": b"{", "headers": JSON}, "MALFORMED_REQUEST"),
        ("/jobs", {"json": {}}, "VALIDATION_ERROR"),
        ("/jobs", {"data": b"x", "headers": {"Content-Type": "a/b"}}, "UNSUPPORTED_MEDIA_TYPE"),
        ("/jobs", {"data": BytesIO(b" " * 2_000_000), "headers": JSON}, "PAYLOAD_TOO_LARGE"),
        ("/jobs?a=b", {"json": {}}, "VALIDATION_ERROR"),
    ],
)
async def test_what_is_refused_is_written_with_its_code(
    gateway: Gateway, events: list[Any], path: str, options: Any, outcome: str
) -> None:
    answer = await gateway.ask("POST", PREFIX + path, **options)
    assert answer.error["code"] == outcome
    assert audited(events)["outcome"] == outcome


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (StatusCode.NOT_FOUND, "JOB_NOT_FOUND"),
        (StatusCode.FAILED_PRECONDITION, "FAILED_PRECONDITION"),
        (StatusCode.UNAVAILABLE, "COORDINATOR_UNAVAILABLE"),
        (StatusCode.INTERNAL, "COORDINATOR_ERROR"),
    ],
)
async def test_what_the_coordinator_refuses_is_written_with_its_code(
    gateway: Gateway, events: list[Any], code: StatusCode, outcome: str
) -> None:
    gateway.coordinator.answer("CancelJob", Failure(code, "no"))
    await gateway.ask("POST", f"{JOBS}/job-1/cancel", json={"reason": "out of budget"})
    event = audited(events)
    assert (event["outcome"], event["target_id"]) == (outcome, "job-1")
    assert "out of budget" not in str(events)


async def test_who_asks_too_often_is_written(
    start: Callable[[Settings], Awaitable[Gateway]], settings: Settings, events: list[Any]
) -> None:
    gateway = await start(replace(settings, limits=LimitsSettings(rate=0.1, burst=1)))
    await gateway.ask("GET", JOBS)
    await gateway.ask("POST", f"{JOBS}/job-1/cancel")
    assert audited(events)["outcome"] == "RATE_LIMITED"


async def test_an_id_of_any_length_is_cut(gateway: Gateway, events: list[Any]) -> None:
    await gateway.ask("POST", f"{JOBS}/{'a' * 4000}/cancel")
    target = audited(events)["target_id"]
    assert len(target) == 256
    assert target.endswith(f"a{CUT}")


async def test_a_defect_is_written(
    gateway: Gateway, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the cause")

    monkeypatch.setattr("app.bridge.client.CoordinatorClient.cancel_job", broken)
    await gateway.ask("POST", f"{JOBS}/job-1/cancel")
    assert audited(events)["outcome"] == "INTERNAL_ERROR"


async def test_reads_leave_none(gateway: Gateway, events: list[Any]) -> None:
    await gateway.ask("GET", JOBS)
    await gateway.ask("GET", "/health")
    await gateway.ask("DELETE", JOBS)
    assert [each for each in events if each["event"] == "audit"] == []


async def test_no_log_level_hides_it(gateway: Gateway) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with structlog.testing.capture_logs() as events:
        await gateway.ask("POST", f"{JOBS}/job-1/cancel")
        await gateway.ask("POST", JOBS, json=dict(SUBMISSION))
    assert [each["event"] for each in events] == ["audit", "audit"]
