"""The stream from an agent on a node: what a part of a run records there."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import grpc.aio

from app.coordinator.engines.agent.records_server import METADATA_KEY
from app.coordinator.engines.remote.calls import streamed
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb
from generated.mindcoordinator.internal.v1.engine_pb2_grpc import EngineAgentCoordinatorStub

#: A node whose power is off answers nothing, and breaks no connection either.
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


async def watch_run(
    agent: pb.OpenRunResponse, run: pb.RunRef, *, epoch: str, after_line: int, after_snapshot: int
) -> AsyncGenerator[pb.RunRecords, None]:
    """Yield what a part has recorded behind these numbers, up to its end.

    `agent` is where it is, as the driver has told it. Raises DriverAway if it
    is not there any more; NothingThere, CannotLaunch, LeadershipLost.
    """
    request = pb.WatchRunRequest(
        run=run, epoch=epoch, after_line=after_line, after_snapshot=after_snapshot
    )
    async with grpc.aio.insecure_channel(agent.agent_address, options=_OPTIONS) as channel:
        stub: Any = EngineAgentCoordinatorStub(channel)
        call = stub.WatchRun(request, metadata=((METADATA_KEY, agent.agent_secret),))
        async with aclosing(streamed(call, term=run.term)) as messages:
            async for records in messages:
                yield records
