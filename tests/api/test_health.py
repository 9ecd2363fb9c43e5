"""Health, readiness and metrics, and a start without what it depends on."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no stubs

from app.api.readiness import Readiness
from app.bridge.settings import UpstreamSettings
from app.database.settings import DatabaseSettings
from app.gateway.settings import Settings
from tests.api.conftest import Gateway
from tests.api.endpoints import PREFIX

Start = Callable[[Settings], Awaitable[Gateway]]

WELL = {"status": "ok"}
NO_DATABASE = DatabaseSettings(dsn="postgresql://someone:the-password@127.0.0.1:1/db")


async def test_ready_names_each_dependency(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", "/health/ready")
    assert answer.status == 200
    assert answer.json == {
        "data": {"status": "ready", "dependencies": {"database": WELL, "coordinator": WELL}}
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
            "database": {"status": "failed", "message": "Connection refused"},
            "coordinator": WELL,
        },
    }


async def test_a_database_without_the_schema_is_not_ready(
    start: Start, settings: Settings, postgres_dsn: str
) -> None:
    gateway = await start(replace(settings, database=DatabaseSettings(dsn=postgres_dsn)))
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
        "coordinator": {"status": "failed", "message": "it is unreachable"},
    }
    answer = await gateway.ask("GET", f"{PREFIX}/jobs/job-1")
    assert (answer.status, answer.error["code"]) == (503, "COORDINATOR_UNAVAILABLE")


async def test_it_recovers_when_the_coordinator_is_back(gateway: Gateway) -> None:
    await gateway.coordinator.stop()
    assert (await gateway.ask("GET", f"{PREFIX}/jobs/job-1")).status == 503
    await gateway.coordinator.start()
    async with asyncio.timeout(20):
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
    """Two dependencies, of which one waits at a gate."""

    def __init__(self) -> None:
        self.calls = 0
        self.problem: str | None = None
        self.gate = asyncio.Event()
        self.now = 100.0
        self.readiness = Readiness(
            checks={"one": self.one, "other": self.other}, clock=lambda: self.now, max_age=1.0
        )

    async def one(self) -> str | None:
        self.calls += 1
        await self.gate.wait()
        return self.problem

    async def other(self) -> str | None:
        self.gate.set()  # so they have to run side by side
        return None


async def test_dependencies_are_checked_side_by_side_and_not_for_each_who_asks() -> None:
    checks = Checks()
    async with asyncio.timeout(10):
        reports = await asyncio.gather(*(checks.readiness.report() for _ in range(20)))
    assert all(report.ready for report in reports)
    assert checks.calls == 1
    checks.problem = "broken"
    checks.now += 0.99
    assert (await checks.readiness.report()).ready
    checks.now += 0.01
    report = await checks.readiness.report()
    assert not report.ready
    assert report.problems == {"one": "broken", "other": None}
