"""Health, readiness and metrics, and a start without what it depends on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import grpc
import pytest
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no stubs

from app.api.readiness import Dependency, Readiness
from app.auth.settings import AuthSettings
from app.bridge.settings import UpstreamSettings
from app.database.settings import DatabaseSettings
from app.gateway.settings import Settings
from tests.api.conftest import Gateway
from tests.api.endpoints import PREFIX
from tests.auth.scripted_issuer import ISSUER, ScriptedIssuer
from tests.databases import patient
from tests.secrecy import secret

Start = Callable[[Settings], Awaitable[Gateway]]

WELL = {"status": "ok", "required": True}
NO_PROVIDER = {"status": "not_configured", "required": False}
NO_DATABASE = DatabaseSettings(dsn="postgresql://someone:the-password@127.0.0.1:1/db")


async def test_ready_names_each_dependency(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", "/health/ready")
    assert answer.status == 200
    assert answer.json == {
        "data": {
            "status": "ready",
            "dependencies": {
                "database": WELL,
                "coordinator": WELL,
                "identity_provider": NO_PROVIDER,
            },
        }
    }


async def test_without_the_database_it_is_alive_and_unready(
    start: Start, settings: Settings
) -> None:
    gateway = await start(replace(settings, database=NO_DATABASE))
    assert (await gateway.ask("GET", "/health")).json == {"data": {"status": "alive"}}
    answer = await gateway.ask("GET", "/health/ready")
    assert answer.status == 503
    assert answer.json["data"] == {
        "status": "unready",
        "dependencies": {
            "database": {
                "status": "failed",
                "message": "Connection refused",
                "required": True,
            },
            "coordinator": WELL,
            "identity_provider": NO_PROVIDER,
        },
    }


async def test_a_database_without_the_schema_is_not_ready(
    start: Start, settings: Settings, postgres_dsn: str
) -> None:
    gateway = await start(replace(settings, database=patient(postgres_dsn)))
    answer = await gateway.ask("GET", "/health/ready")
    assert answer.status == 503
    assert "migrate" in answer.json["data"]["dependencies"]["database"]["message"]


async def test_without_the_coordinator_it_is_alive_and_unready(
    start: Start, settings: Settings
) -> None:
    nowhere = UpstreamSettings(address="127.0.0.1:1", api_secret="s3cret-s3cret")
    gateway = await start(replace(settings, upstream=nowhere))
    assert (await gateway.ask("GET", "/health")).status == 200
    answer = await gateway.ask("GET", "/health/ready")
    assert answer.status == 503
    assert answer.json["data"]["dependencies"] == {
        "database": WELL,
        "coordinator": {"status": "failed", "message": "it is unreachable", "required": True},
        "identity_provider": NO_PROVIDER,
    }
    answer = await gateway.ask("GET", f"{PREFIX}/jobs/job-1")
    assert (answer.status, answer.error["code"]) == (503, "COORDINATOR_UNAVAILABLE")


async def test_it_recovers_when_the_coordinator_is_back(gateway: Gateway) -> None:
    await gateway.coordinator.stop()
    assert (await gateway.ask("GET", f"{PREFIX}/jobs/job-1")).status == 503
    await gateway.coordinator.start()
    async with asyncio.timeout(60):
        while (await gateway.ask("GET", f"{PREFIX}/jobs/job-1")).status != 200:  # noqa: ASYNC110 - gRPC connects when it likes
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        (health_pb2.HealthCheckResponse.SERVING, 200),
        (health_pb2.HealthCheckResponse.NOT_SERVING, 503),
    ],
)
async def test_the_health_protocol_is_spoken(
    start: Start, settings: Settings, status: int, ready: int
) -> None:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await servicer.set("", status)
    coordinator = replace(settings.upstream, address=f"127.0.0.1:{port}")
    gateway = await start(replace(settings, upstream=coordinator))
    assert (await gateway.ask("GET", "/health/ready")).status == ready
    await server.stop(None)


async def test_the_metrics_are_exposed(gateway: Gateway) -> None:
    await gateway.ask("GET", f"{PREFIX}/jobs")
    answer = await gateway.ask("GET", "/metrics", headers={"Authorization": ""})
    assert answer.headers["Content-Type"].startswith("text/plain")
    text = answer.body.decode()
    assert "\nscaimind_upstream_streams 0.0\n" in text
    assert '\nscaimind_watchers{kind="logs"} 0.0\n' in text
    assert f'scaimind_requests_total{{method="GET",route="{PREFIX}/jobs",status="200"}} 1.0' in text
    assert 'scaimind_coordinator_calls_total{code="OK",method="ListJobs"} 1.0' in text


class Checks:
    """Three dependencies: `slow` waits at a gate that `other` opens, `spare` is not required."""

    def __init__(self) -> None:
        self.calls = 0
        self.problem: str | None = None
        self.spare_problem: str | None = None
        self.gate = asyncio.Event()
        self.now = 100.0
        self.readiness = Readiness(
            (
                Dependency("slow", self.slow),
                Dependency("other", self.other),
                Dependency("spare", self.spare, required=False),
            ),
            clock=lambda: self.now,
            max_age=1.0,
        )

    async def slow(self) -> str | None:
        self.calls += 1
        await self.gate.wait()
        return self.problem

    async def other(self) -> str | None:
        self.gate.set()  # so they have to run side by side
        return None

    async def spare(self) -> str | None:
        return self.spare_problem

    async def problems(self) -> dict[str, str | None]:
        report = await self.readiness.report()
        return {each.dependency.name: each.problem for each in report.findings}


async def test_dependencies_are_checked_side_by_side_and_not_for_each_who_asks() -> None:
    checks = Checks()
    async with asyncio.timeout(60):
        reports = await asyncio.gather(*(checks.readiness.report() for _ in range(20)))
    assert all(report.ready for report in reports)
    assert checks.calls == 1
    checks.problem = "broken"
    checks.now += 0.99
    assert (await checks.readiness.report()).ready
    checks.now += 0.01
    assert not (await checks.readiness.report()).ready
    assert await checks.problems() == {"slow": "broken", "other": None, "spare": None}


async def test_those_who_ask_during_a_slow_check_share_its_result() -> None:
    checks = Checks()
    checks.readiness = Readiness(
        (Dependency("slow", checks.slow),), clock=lambda: checks.now, max_age=1.0
    )
    asking = [asyncio.create_task(checks.readiness.report())]
    async with asyncio.timeout(60):
        while not checks.calls:  # noqa: ASYNC110 - the check has begun when it has counted itself
            await asyncio.sleep(0)
    # Longer than a report counts: dated by its beginning, each would be followed by another.
    checks.now += 2.0
    asking += [asyncio.create_task(checks.readiness.report()) for _ in range(20)]
    asking[0].cancel()  # who began it may leave
    await asyncio.wait(asking[:1])
    checks.gate.set()
    async with asyncio.timeout(60):
        assert all(report.ready for report in await asyncio.gather(*asking[1:]))
    assert (await checks.readiness.report()).ready
    assert checks.calls == 1


async def test_what_is_not_required_is_named_and_keeps_nobody_from_being_ready() -> None:
    checks = Checks()
    checks.spare_problem = "away"
    assert (await checks.readiness.report()).ready
    assert (await checks.problems())["spare"] == "away"


@pytest.fixture
async def issuer() -> AsyncIterator[ScriptedIssuer]:
    async with ScriptedIssuer().running() as issuer:
        yield issuer


async def test_the_identity_provider_is_named_and_not_required(
    start: Start, settings: Settings, issuer: ScriptedIssuer
) -> None:
    auth = AuthSettings(issuer=ISSUER, jwks_url=issuer.jwks_url)
    gateway = await start(replace(settings, auth=auth))
    answer = await gateway.ask("GET", "/health/ready")
    assert answer.json["data"]["dependencies"]["identity_provider"] == {
        "status": "ok",
        "required": False,
    }


async def test_it_is_ready_without_the_identity_provider(start: Start, settings: Settings) -> None:
    auth = AuthSettings(issuer=ISSUER, jwks_url="http://127.0.0.1:1/jwks")
    gateway = await start(replace(settings, auth=auth))
    answer = await gateway.ask("GET", "/health/ready")
    assert (answer.status, answer.json["data"]["status"]) == (200, "ready")
    assert answer.json["data"]["dependencies"]["identity_provider"] == {
        "status": "failed",
        "message": "its keys cannot be fetched",
        "required": False,
    }


async def test_an_exchange_that_is_away_shows(
    start: Start, settings: Settings, issuer: ScriptedIssuer
) -> None:
    auth = AuthSettings(
        token_url="http://127.0.0.1:1/token",
        client_id="gateway",
        client_secret=secret("the-client-secret"),
    )
    gateway = await start(replace(settings, auth=auth))
    assert (await gateway.ask("GET", f"{PREFIX}/data/cache")).status == 503
    answer = await gateway.ask("GET", "/health/ready")
    assert answer.status == 200
    assert answer.json["data"]["dependencies"]["identity_provider"] == {
        "status": "failed",
        "message": "it did not answer the last request for tokens",
        "required": False,
    }


@pytest.mark.parametrize("forwarded", [True, False])
async def test_a_gateway_that_forwards_no_tokens_says_so_at_its_start(
    start: Start, settings: Settings, issuer: ScriptedIssuer, forwarded: bool
) -> None:
    auth = AuthSettings()
    if forwarded:
        auth = AuthSettings(
            token_url=issuer.token_url,
            client_id="gateway",
            client_secret=secret("the-client-secret"),
        )
    with structlog.testing.capture_logs() as events:
        await start(replace(settings, auth=auth))
    told = [event for event in events if event["event"] == "tokens_not_forwarded"]
    assert [event["log_level"] for event in told] == ([] if forwarded else ["warning"])
