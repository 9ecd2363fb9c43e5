"""A server that stops ends its streams at once, and waits for the calls that are answered soon."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import (  # type: ignore[import-untyped]  # no stubs
    health_pb2,
    health_pb2_grpc,
)

from app.coordinator.service.serving import grpc_server
from app.coordinator.service.serving.grpc_server import GrpcServer
from app.telemetry.tracing import NoTracer
from generated.mindcoordinator.v1.coordinator_pb2_grpc import (
    MindCoordinatorServicer,
    MindCoordinatorStub,
)
from generated.mindcoordinator.v1.jobs_pb2 import GetJobRequest, Job
from generated.mindcoordinator.v1.watch_pb2 import WatchJobRequest, WatchJobResponse
from tests.coordinator.harness import PATIENCE, SECRET, config_for

METADATA = (("x-api-secret", SECRET), ("x-tenant-id", "local"))


class Service(MindCoordinatorServicer):
    """Answers when it is told to, and streams nothing."""

    def __init__(self) -> None:
        self.called, self.go, self.closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def GetJob(self, request: GetJobRequest, context: Any) -> Job:
        self.called.set()
        await self.go.wait()
        return Job(job_id="a" * 100_000)

    async def WatchJob(
        self, request: WatchJobRequest, context: Any
    ) -> AsyncIterator[WatchJobResponse]:
        try:
            yield WatchJobResponse()
            await asyncio.Event().wait()
        finally:
            self.closed.set()


async def test_streams_end_at_once_and_a_call_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long it may take: nothing but the call is waited for.
    monkeypatch.setattr(grpc_server, "_STOP_PATIENCE", 10.0 * PATIENCE)
    # It has two of the methods.
    service: Service = cast(Any, Service)()
    server = GrpcServer(config_for(tmp_path), service, tracer=NoTracer())
    await server.start(serving=True)
    async with (
        asyncio.timeout(PATIENCE),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub: Any = MindCoordinatorStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.WatchJob(WatchJobRequest(), metadata=METADATA)
        await watch.read()
        serving = health.Watch(health_pb2.HealthCheckRequest())
        await serving.read()
        job = stub.GetJob(GetJobRequest(), metadata=METADATA)
        await service.called.wait()
        stopping = asyncio.create_task(server.stop())
        for stream in (watch, serving):
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await stream.read()
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        await service.closed.wait()
        assert not stopping.done()
        service.go.set()
        assert len((await job).job_id) == 100_000
        await stopping
