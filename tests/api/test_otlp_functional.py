"""Spans as a collector gets them: over real HTTP and gRPC, from a whole gateway."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import StatusCode

from app.gateway.application import create_app
from app.gateway.settings import Settings
from app.telemetry.trace_context import TraceContext
from app.telemetry.tracing import Tracer, open_tracer
from generated.mindcoordinator.v1 import jobs_pb2, watch_pb2
from tests.api.conftest import Gateway, Keys, MakeClient
from tests.api.endpoints import PREFIX
from tests.scripted_coordinator import Failure, ScriptedCoordinator
from tests.telemetry.collector import COLLECTORS, Collector, attributes_of

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry (the extra otel) is missing")

JOBS = f"{PREFIX}/jobs"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SERVER, CLIENT, ERROR = 2, 3, 2


@pytest.fixture(params=COLLECTORS)
async def collector(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Collector]:
    async with COLLECTORS[request.param]() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield collector


@pytest.fixture
async def tracer(collector: Collector) -> AsyncIterator[Tracer]:
    tracer = await asyncio.to_thread(open_tracer, service_name="scaimind-gateway")
    yield tracer
    await asyncio.to_thread(tracer.close)


@pytest.fixture
async def gateway(
    aiohttp_client: MakeClient,
    settings: Settings,
    coordinator: ScriptedCoordinator,
    keys: Keys,
    tracer: Tracer,
) -> Gateway:
    app = create_app(settings, tracer=tracer)
    return Gateway(await aiohttp_client(app), app, coordinator, keys)


def by_kind(spans: list[Any], kind: int) -> Any:
    (span,) = [each for each in spans if each.kind == kind]
    return span


async def test_a_request_and_its_call_are_two_spans_of_the_trace(
    gateway: Gateway, collector: Collector
) -> None:
    await gateway.ask("GET", JOBS, headers={"traceparent": PARENT, "X-Request-ID": "id-1"})
    spans = await collector.until(lambda spans: len(spans) == 2)
    server, client = by_kind(spans, SERVER), by_kind(spans, CLIENT)
    assert {each.trace_id.hex() for each in spans} == {TRACE}
    assert server.parent_span_id.hex() == SPAN
    assert client.parent_span_id == server.span_id
    (arrived,) = gateway.coordinator.requests("ListJobs")
    assert TraceContext.parse(str(arrived.metadata["traceparent"])).span_id == client.span_id.hex()
    assert server.name == f"GET {JOBS}"
    assert attributes_of(server) == {
        "http.request.method": "GET",
        "http.route": JOBS,
        "http.response.status_code": 200,
        "url.scheme": "http",
        "scaimind.request_id": "id-1",
    }
    assert client.name == "mindcoordinator.v1.MindCoordinator/ListJobs"
    assert attributes_of(client)["rpc.method"] == "ListJobs"
    (resource, _) = collector.resources
    assert resource["service.name"] == "scaimind-gateway"
    assert resource["deployment.environment.name"] == "test"


async def test_a_trace_begins_here_where_none_is_given(
    gateway: Gateway, collector: Collector
) -> None:
    await gateway.ask("GET", JOBS)
    server = by_kind(await collector.until(lambda spans: len(spans) == 2), SERVER)
    assert server.parent_span_id == b""


async def test_what_fails_says_by_what_code(gateway: Gateway, collector: Collector) -> None:
    gateway.coordinator.answer("GetJob", Failure(StatusCode.INTERNAL, "the cause"))
    await gateway.ask("GET", f"{JOBS}/job-1")
    spans = await collector.until(lambda spans: len(spans) == 2)
    server, client = by_kind(spans, SERVER), by_kind(spans, CLIENT)
    assert (server.status.code, server.status.message) == (ERROR, "COORDINATOR_ERROR")
    assert (client.status.code, client.status.message) == (ERROR, "INTERNAL")
    assert attributes_of(client)["rpc.grpc.status_code"] == 13
    assert "the cause" not in str(spans)


async def test_what_others_do_not_sample_is_not_sent(
    gateway: Gateway, collector: Collector
) -> None:
    await gateway.ask("GET", JOBS, headers={"traceparent": f"{PARENT[:-2]}00"})
    await gateway.ask("GET", JOBS, headers={"traceparent": PARENT.replace("4b", "5b")})
    spans = await collector.until(lambda spans: len(spans) >= 2)
    assert {each.trace_id.hex()[:2] for each in spans} == {"5b"}


async def test_a_stream_is_one_span_however_many_watch(
    gateway: Gateway, collector: Collector
) -> None:
    ending = asyncio.Event()

    async def watch(_: Any, __: Any) -> AsyncIterator[watch_pb2.WatchJobResponse]:
        training, completed = jobs_pb2.JOB_STATUS_TRAINING, jobs_pb2.JOB_STATUS_COMPLETED
        yield watch_pb2.WatchJobResponse(start=watch_pb2.WatchStart(epoch="e1", status=training))
        await ending.wait()
        yield watch_pb2.WatchJobResponse(end=watch_pb2.WatchEnd(status=completed))

    job = jobs_pb2.Job(job_id="job-1", tenant_id="acme", status=jobs_pb2.JOB_STATUS_TRAINING)
    gateway.coordinator.answer("GetJob", job)
    gateway.coordinator.answer("WatchJob", watch)
    key = {"Authorization": f"Bearer {gateway.keys.admin}"}
    watching = [await gateway.client.get(f"{JOBS}/job-1/logs", headers=key) for _ in range(3)]
    assert [each.status for each in watching] == [200] * 3
    ending.set()
    for each in watching:
        assert b"COMPLETED" in await each.read()
    await gateway.ask("GET", JOBS)
    names = [
        each.name.rpartition("/")[2]
        for each in await collector.until(
            lambda spans: {"WatchJob", "ListJobs"} <= {s.name.rpartition("/")[2] for s in spans}
        )
    ]
    assert names.count("WatchJob") == 1
    assert not [each for each in collector.spans if each.kind == SERVER and "logs" in each.name]


async def test_requests_go_on_while_the_collector_is_away(
    aiohttp_client: MakeClient,
    settings: Settings,
    coordinator: ScriptedCoordinator,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    # So that the thread that tries to send ends with this test.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    tracer = await asyncio.to_thread(open_tracer, service_name="scaimind-gateway")
    app = create_app(settings, tracer=tracer)
    gateway = Gateway(await aiohttp_client(app), app, coordinator, keys)
    assert (await gateway.ask("GET", JOBS)).status == 200
    async with asyncio.timeout(60):
        await asyncio.to_thread(tracer.close)
