"""Sends what an agent's run records straight to the coordinator, by the contract of
`mindcoordinator.internal.v1`.

The agents listen on their nodes' addresses, where others may reach them, too:
each has a secret, which the coordinator is told through the cluster.
"""

import hmac
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio
from typing_extensions import override

from app.coordinator.engines.agent.agent import RunAgent
from app.coordinator.engines.agent.answers import DONE, STATUS_CODES, answer_of
from app.coordinator.engines.agent.records import Records
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb
from generated.mindcoordinator.internal.v1.engine_pb2_grpc import (
    EngineAgentCoordinatorServicer,
    add_EngineAgentCoordinatorServicer_to_server,
)

METADATA_KEY: Final = "x-agent-secret"
#: Seconds that an agent waits for something new before it says that there is nothing.
_PATIENCE: Final = 10.0
#: A coordinator whose machine is gone is noticed, and one that asks whether this is there is
#: answered.
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.max_concurrent_streams", 32),
    # Two agents never share a port.
    ("grpc.so_reuseport", 0),
)

Context = grpc.aio.ServicerContext[Any, Any]


class RecordsServer(EngineAgentCoordinatorServicer):
    """Serves one agent, on its event loop."""

    def __init__(self, agent: RunAgent, *, host: str) -> None:
        """`host` is an address of this node, that of its interface to the others."""
        self._agent = agent
        self._host = f"[{host}]" if ":" in host else host
        self._server: grpc.aio.Server | None = None
        #: Where it listens, host:port; empty while it does not.
        self.address = ""
        self.secret = secrets.token_hex(32)

    async def start(self) -> None:
        """Listen, unless it does already. Raises OSError."""
        if self._server is not None:
            return
        server = grpc.aio.server(options=_OPTIONS)
        add_EngineAgentCoordinatorServicer_to_server(self, server)
        try:
            port = server.add_insecure_port(f"{self._host}:0")
        except RuntimeError as error:  # what gRPC says of every failure to bind
            raise OSError(f"cannot listen on {self._host}: {error}") from error
        # Whoever asks meanwhile is told, too.
        self._server, self.address = server, f"{self._host}:{port}"
        await server.start()

    async def close(self) -> None:
        """Stop listening; calls end."""
        server, self._server, self.address = self._server, None, ""
        if server is not None:
            await server.stop(None)

    @override
    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Context
    ) -> AsyncIterator[pb.RunRecords]:
        await self._admit(context)
        epoch, line, snapshot = request.epoch, request.after_line, request.after_snapshot
        while True:
            kind, value = await answer_of(
                self._agent.records(
                    term=request.run.term,
                    epoch=epoch,
                    after_line=line,
                    after_snapshot=snapshot,
                    patience=_PATIENCE,
                )
            )
            if kind != DONE:
                await context.abort(STATUS_CODES[kind], value)
            found: Records = value
            if found.epoch != epoch:
                if epoch:
                    line = snapshot = 0
                epoch = found.epoch
            line = found.line_behind or line
            snapshot = found.snapshot_behind or snapshot
            yield _message(found)
            if found.end:
                return

    async def _admit(self, context: Context) -> None:
        metadata = context.invocation_metadata() or ()
        given = [value for name, value in metadata if name == METADATA_KEY]
        if len(given) != 1 or not hmac.compare_digest(_bytes_of(given[0]), self.secret.encode()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this is another agent")


def _bytes_of(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _message(found: Records) -> pb.RunRecords:
    return pb.RunRecords(
        epoch=found.epoch,
        first_line=found.first_line,
        lines=found.lines,
        first_snapshot=found.first_snapshot,
        snapshots=found.snapshots,
        end=found.end,
        lost_through=found.lost_through,
    )
