"""What every request goes through: ids, headers, errors, logs, counts."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog
from aiohttp import web
from grpc import StatusCode

from app.api.access import public
from app.api.app_keys import METRICS
from app.database.settings import DatabaseSettings
from app.gateway.application import create_app
from app.gateway.settings import Settings
from generated.mindcoordinator.v1.jobs_pb2 import ListJobsResponse
from tests.api.conftest import Client, Gateway, MakeClient
from tests.api.endpoints import PREFIX
from tests.scripted_coordinator import Failure, ScriptedCoordinator

JOBS = f"{PREFIX}/jobs"
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Server": "scaimind",
}


@pytest.fixture
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as captured:
        yield captured


@pytest.mark.parametrize("given", ["abc", "req_1", "A1.b:c-d_e", "0" * 128])
async def test_a_sane_request_id_is_kept(gateway: Gateway, given: str) -> None:
    answer = await gateway.ask("GET", JOBS, headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given
    assert gateway.coordinator.requests("ListJobs")[0].metadata["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "-a", "é", "0" * 129, '"x"', "a\tb"])
async def test_another_is_replaced(gateway: Gateway, given: str) -> None:
    answer = await gateway.ask("GET", JOBS, headers={"X-Request-ID": given})
    made = answer.headers["X-Request-ID"]
    assert re.fullmatch(r"req_[0-9a-f]{24}", made)
    assert gateway.coordinator.requests("ListJobs")[0].metadata["x-request-id"] == made


async def test_ids_that_are_made_differ(gateway: Gateway) -> None:
    made = {(await gateway.ask("GET", "/health")).headers["X-Request-ID"] for _ in range(20)}
    assert len(made) == 20


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/metrics", 200),
        ("GET", JOBS, 200),
        ("GET", "/nothing", 404),
        ("DELETE", JOBS, 405),
        ("OPTIONS", JOBS, 204),
        ("POST", JOBS, 400),
        ("GET", f"{JOBS}?x=1", 422),
    ],
)
async def test_every_answer_has_an_id_and_the_security_headers(
    gateway: Gateway, method: str, path: str, status: int
) -> None:
    answer = await gateway.ask(method, path, headers={"X-Request-ID": "id-1"})
    assert answer.status == status
    assert answer.headers["X-Request-ID"] == "id-1"
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


@pytest.mark.parametrize("path", ["/v1", f"{PREFIX}/job", f"{JOBS}/", f"{JOBS}/a/b"])
async def test_no_such_route(gateway: Gateway, path: str) -> None:
    answer = await gateway.ask("GET", path)
    assert (answer.status, answer.error["code"]) == (404, "ROUTE_NOT_FOUND")


async def test_a_route_without_this_method(gateway: Gateway) -> None:
    answer = await gateway.ask("PATCH", JOBS)
    assert (answer.status, answer.error["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}
    assert "POST" in answer.error["message"]


async def test_options_tells_the_methods_and_needs_no_token(gateway: Gateway) -> None:
    answer = await gateway.ask("OPTIONS", JOBS, headers={"Authorization": ""})
    assert (answer.status, answer.body) == (204, b"")
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_options_of_nothing_is_nothing(gateway: Gateway) -> None:
    assert (await gateway.ask("OPTIONS", "/nothing")).status == 404


async def test_head_is_get_without_the_body(gateway: Gateway) -> None:
    got = await gateway.ask("GET", JOBS)
    head = await gateway.ask("HEAD", JOBS)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(got.body))
    refused = await gateway.ask("HEAD", JOBS, headers={"Authorization": ""})
    assert (refused.status, refused.body) == (401, b"")


class Broken:
    """A gateway with routes that fail."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @classmethod
    async def start(cls, make: MakeClient, settings: Settings) -> "Broken":
        app = create_app(settings)
        app.router.add_get("/raises", cls.raises)
        app.router.add_get("/breaks-off", cls.breaks_off)
        app.router.add_get("/teapot", cls.teapot)
        return cls(await make(app))

    @staticmethod
    @public
    async def raises(_: web.Request) -> web.Response:
        raise RuntimeError("the cause, with SELECT secret FROM /etc/passwd")

    @staticmethod
    @public
    async def breaks_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        raise RuntimeError("the cause")

    @staticmethod
    @public
    async def teapot(_: web.Request) -> web.Response:
        raise web.HTTPBadRequest(text="aiohttp's own words")


async def test_what_nobody_expected_is_logged_and_not_told(
    aiohttp_client: MakeClient, settings: Settings, events: list[Any]
) -> None:
    broken = await Broken.start(aiohttp_client, settings)
    async with broken.client.get("/raises", headers={"X-Request-ID": "id-1"}) as response:
        assert response.status == 500
        body = await response.json()
    assert body["error"]["code"] == "INTERNAL_ERROR"
    assert body["meta"] == {"request_id": "id-1"}
    assert "SELECT" not in str(body)
    [failed] = [event for event in events if event["event"] == "request_failed"]
    assert failed["request_id"] == "id-1"
    assert failed["exc_info"]


async def test_what_fails_after_it_began_breaks_off(
    aiohttp_client: MakeClient, settings: Settings, events: list[Any]
) -> None:
    broken = await Broken.start(aiohttp_client, settings)
    async with broken.client.get("/breaks-off") as response:
        assert response.status == 200
        assert b"status" not in await response.content.readany()
    assert [event["route"] for event in events if event["event"] == "request_failed"] == [
        "/breaks-off"
    ]


async def test_aiohttps_own_refusals_have_the_envelope(
    aiohttp_client: MakeClient, settings: Settings
) -> None:
    broken = await Broken.start(aiohttp_client, settings)
    async with broken.client.get("/teapot") as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "MALFORMED_REQUEST"


async def test_each_request_is_one_event_with_who_and_what(
    gateway: Gateway, events: list[Any]
) -> None:
    await gateway.ask("GET", f"{JOBS}?page_size=1", headers={"X-Request-ID": "id-1"})
    await gateway.ask("GET", "/health", headers={"X-Request-ID": "id-2"})
    one, other = [event for event in events if event["event"] == "request"]
    seconds = one.pop("seconds")
    assert seconds > 0
    assert len(one.pop("trace_id")) == 32
    assert one == {
        "event": "request",
        "log_level": "info",
        "request_id": "id-1",
        "tenant_id": "acme",
        "user_id": "ann",
        "method": "GET",
        "route": JOBS,
        "path": JOBS,
        "status": 200,
        "code": None,
        "remote": "127.0.0.1",
    }
    assert other["request_id"] == "id-2"
    assert "tenant_id" not in other, "the context of a request stays on its connection"


async def test_what_the_coordinator_said_is_logged_under_the_requests_id(
    gateway: Gateway, events: list[Any]
) -> None:
    gateway.coordinator.answer("ListJobs", Failure(StatusCode.INTERNAL, "panic: at db.go:12"))
    answer = await gateway.ask("GET", JOBS)
    assert "db.go" not in answer.error["message"]
    [said] = [event for event in events if event["event"] == "scaimind_coordinator_error"]
    assert "db.go:12" in said["detail"]
    assert said["request_id"] == answer.headers["X-Request-ID"]


def sample(gateway: Gateway, name: str, **labels: str) -> float | None:
    return gateway.app[METRICS].registry.get_sample_value(name, labels)


async def test_requests_are_counted_by_route_and_not_by_path(gateway: Gateway) -> None:
    for job in ("a", "b", "c"):
        await gateway.ask("GET", f"{JOBS}/{job}")
    await gateway.ask("GET", "/nothing/at/all")
    await gateway.ask("PROPFIND", "/coffee")
    total = "scaimind_requests_total"
    assert sample(gateway, total, method="GET", route=f"{JOBS}/{{job_id}}", status="200") == 3
    assert sample(gateway, total, method="GET", route="unknown", status="404") == 1
    assert sample(gateway, total, method="OTHER", route="unknown", status="404") == 1
    seconds = "scaimind_request_seconds_count"
    assert sample(gateway, seconds, method="GET", route=f"{JOBS}/{{job_id}}") == 3
    calls = "scaimind_coordinator_calls_total"
    assert sample(gateway, calls, method="GetJob", code="OK") == 3


async def test_a_key_is_looked_up_once_in_a_while(gateway: Gateway) -> None:
    for _ in range(5):
        await gateway.ask("GET", JOBS)
    assert sample(gateway, "scaimind_auth_lookups_total", result="known") == 1
    assert sample(gateway, "scaimind_auth_lookups_total", result="remembered") == 4


async def test_without_the_database_nobody_is_refused_and_nobody_let_in(
    start: Callable[[Settings], Awaitable[Gateway]], settings: Settings
) -> None:
    nowhere = DatabaseSettings(dsn="postgresql://u:the-password@127.0.0.1:1/db")
    gateway = await start(replace(settings, database=nowhere))
    answer = await gateway.ask("GET", JOBS)
    assert (answer.status, answer.error["code"]) == (503, "AUTH_UNAVAILABLE")
    assert answer.headers["Retry-After"] == str(answer.error["retry_after"])
    assert "WWW-Authenticate" not in answer.headers


async def test_a_client_that_leaves_is_noted_and_harms_nobody(
    gateway: Gateway, coordinator: ScriptedCoordinator
) -> None:
    gate = asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        await gate.wait()
        return ListJobsResponse()

    coordinator.answer("ListJobs", slow)
    asking = asyncio.create_task(gateway.ask("GET", JOBS))
    await coordinator.received("ListJobs")
    asking.cancel()
    await asyncio.wait((asking,))
    gate.set()
    answer = await gateway.ask("GET", f"{JOBS}/job-1")
    assert answer.status == 200
