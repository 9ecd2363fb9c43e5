"""An OpenTelemetry collector within the test's process, over real HTTP and gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web

Span = Any

_METHOD = "Export"
_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(slots=True)
class Collector:
    """What arrived, in the order of arrival."""

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    #: Attributes of the resource of each span's batch.
    resources: list[dict[str, str]] = field(default_factory=list)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, data: bytes) -> None:
        """Take an ExportTraceServiceRequest."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        async with self._arrived:
            for batch in ExportTraceServiceRequest.FromString(data).resource_spans:
                found = {each.key: each.value.string_value for each in batch.resource.attributes}
                for scope in batch.scope_spans:
                    self.spans += scope.spans
                    self.resources += [found] * len(scope.spans)
            self._arrived.notify_all()

    async def until(self, enough: Callable[[list[Span]], bool]) -> list[Span]:
        """Wait for spans that are enough, sixty seconds at most."""
        async with asyncio.timeout(60), self._arrived:
            await self._arrived.wait_for(lambda: enough(self.spans))
        return self.spans


@asynccontextmanager
async def http_collector() -> AsyncIterator[Collector]:
    collector = Collector()

    async def export(request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        await collector.take(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", export)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield collector
    await runner.cleanup()


@asynccontextmanager
async def grpc_collector() -> AsyncIterator[Collector]:
    collector = Collector()

    async def export(request: bytes, _: Any) -> bytes:
        await collector.take(request)
        return b""

    server = grpc.aio.server()
    handlers: dict[str, Any] = {_METHOD: grpc.unary_unary_rpc_method_handler(export)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield collector
    await server.stop(None)


COLLECTORS = {"http/protobuf": http_collector, "grpc": grpc_collector}


def attributes_of(span: Span) -> dict[str, Any]:
    """The attributes of a span, each as text or number."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
