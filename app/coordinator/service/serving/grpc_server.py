"""The gRPC server: the service, its health, and reflection."""

from typing import Final

import grpc.aio
from grpc_health.v1 import (  # type: ignore[import-untyped]  # no stubs
    health,
    health_pb2,
    health_pb2_grpc,
)
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # no stubs

from app.coordinator.service.interceptor import ApiSecretInterceptor
from app.coordinator.service.listening import SERVICE, listen
from app.coordinator.service.serving.open_streams import OpenStreams
from app.coordinator.service.tracing import TraceInterceptor
from app.coordinator.settings.coordinator import CoordinatorConfig
from app.telemetry.tracing import Tracer
from generated.mindcoordinator.v1 import coordinator_pb2_grpc

#: A name whose health is SERVING as long as calls are answered, also while it stands by: what a
#: supervisor asks before it starts the program again.
LIVENESS: Final = "liveness"
#: Seconds that calls may still take when it stops. Streams end at once.
_STOP_PATIENCE: Final = 1.0


class GrpcServer:
    """Listens from the beginning, and answers once it has started. Its health is NOT_SERVING
    until it serves, but for that of `LIVENESS`."""

    def __init__(
        self,
        config: CoordinatorConfig,
        service: coordinator_pb2_grpc.MindCoordinatorServicer,
        *,
        tracer: Tracer,
    ) -> None:
        """Raises BadConfig if it cannot listen."""
        self._streams = OpenStreams()
        by_secret = ApiSecretInterceptor(api_secret=config.api_secret, streams=self._streams)
        self._server = server = grpc.aio.server(
            interceptors=[TraceInterceptor(tracer), by_secret],
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.max_send_message_length", config.max_message_bytes),
                # A gateway pings every few seconds, streams or none.
                ("grpc.keepalive_permit_without_calls", 1),
                (
                    "grpc.http2.min_ping_interval_without_data_ms",
                    int(config.min_ping_interval * 1000),
                ),
                ("grpc.http2.max_ping_strikes", 0),
                # A gateway that comes back opens all its streams at once; beyond these, gRPC
                # rejects calls at random that nobody has looked at yet.
                ("grpc.server.max_pending_requests", 2 * config.max_watches),
                ("grpc.server.max_pending_requests_hard_limit", 4 * config.max_watches),
                # Two coordinators on one port would share the calls between them.
                ("grpc.so_reuseport", 0),
            ],
        )
        coordinator_pb2_grpc.add_MindCoordinatorServicer_to_server(service, server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
        )
        self.port = listen(server, config)

    async def start(self, *, serving: bool) -> None:
        """Take calls; `serving` is what its health says."""
        # The health of the whole program is SERVING from the first call on, unless it is set.
        await self._set(serving=serving)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def serve(self) -> None:
        """Have its health say that it serves, from here on."""
        await self._set(serving=True)

    async def retire(self) -> None:
        """Have its health say that it no longer serves; what is open goes on."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        """End the streams, then the calls that are open, and listen no longer; once more does
        nothing."""
        self._streams.end()
        await self._server.stop(_STOP_PATIENCE)
        await self._streams.leave()

    async def _set(self, *, serving: bool) -> None:
        statuses = health_pb2.HealthCheckResponse
        for name in (SERVICE, ""):
            await self._health.set(name, statuses.SERVING if serving else statuses.NOT_SERVING)
