"""The coordinator's spans, as a collector gets them."""

import asyncio
from pathlib import Path

import grpc
import pytest

from app.coordinator.server import Coordinator
from app.telemetry.tracing import open_tracer
from generated.mindcoordinator.v1.cluster_pb2 import GetNodeRequest, ListNodesRequest
from tests.coordinator.harness import client_of, config_for
from tests.telemetry.collector import attributes_of, http_collector

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry (the extra otel) is missing")

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SERVER, ERROR = 2, 2


async def test_each_call_is_a_span_of_its_callers_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        tracer = await asyncio.to_thread(open_tracer, service_name="scaimind-coordinator")
        config = config_for(tmp_path)
        async with (
            Coordinator(config, tracer=tracer) as coordinator,
            client_of(coordinator.port, config.drive_root) as client,
        ):
            metadata = (*client.metadata, ("traceparent", f"00-{TRACE}-{SPAN}-01"))
            await client.stub.ListNodes(ListNodesRequest(), metadata=metadata)
            with pytest.raises(grpc.aio.AioRpcError):
                await client.stub.GetNode(GetNodeRequest(node_id="none"), metadata=metadata)
        await asyncio.to_thread(tracer.close)
        spans = await collector.until(lambda spans: len(spans) == 2)
    good, bad = sorted(spans, key=lambda span: span.name, reverse=True)
    for each in spans:
        assert (each.trace_id.hex(), each.parent_span_id.hex()) == (TRACE, SPAN)
        assert each.kind == SERVER
    assert good.name == "mindcoordinator.v1.MindCoordinator/ListNodes"
    assert attributes_of(good)["rpc.method"] == "ListNodes"
    assert (bad.status.code, bad.status.message) == (ERROR, "NOT_FOUND")
    assert {each["service.name"] for each in collector.resources} == {"scaimind-coordinator"}
