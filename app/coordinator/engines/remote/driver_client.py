"""The calls of a driver."""

from collections.abc import AsyncGenerator
from typing import Any, Final

import grpc.aio

from app.coordinator.engines.engine import Discard
from app.coordinator.engines.remote.calls import BadMessage, answered, streamed
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb
from generated.mindcoordinator.internal.v1.engine_pb2_grpc import EngineDriverCoordinatorStub

_MESSAGE: Final = 64 * 1024 * 1024
#: Seconds that a call may take. Making an agent takes most of it.
_CALL: Final = 120.0


class DriverClient:
    """Calls the driver that listens on a socket, the one after it included."""

    def __init__(self, socket: str) -> None:
        options = [(f"grpc.max_{way}_message_length", _MESSAGE) for way in ("send", "receive")]
        # A driver that was started again is found at once.
        options += [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=options)
        self._stub: Any = EngineDriverCoordinatorStub(self._channel)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def nodes(self) -> AsyncGenerator[pb.Nodes, None]:
        """Yield the nodes at once and whenever they change. Raises DriverAway."""
        async for nodes in streamed(self._stub.WatchNodes(pb.WatchNodesRequest())):
            yield nodes

    async def open_run(self, run: pb.RunRef) -> pb.OpenRunResponse:
        """Have an agent there; returns where it is. Raises as `start_run` does."""
        answer: pb.OpenRunResponse = await answered(
            self._stub.OpenRun(pb.OpenRunRequest(run=run), timeout=_CALL), term=run.term
        )
        if not 0 < answer.meeting_port < 1 << 16:
            raise BadMessage(f"the agent's port for the ranks is none ({answer.meeting_port})")
        return answer

    async def start_run(self, run: pb.RunRef, part: bytes) -> None:
        """Start a part of a run unless it was started before.

        Raises DriverAway, NodeLost, CannotLaunch; as every call about a run,
        LeadershipLost if a higher term is known there.
        """
        await answered(
            self._stub.StartRun(pb.StartRunRequest(run=run, part=part), timeout=_CALL),
            term=run.term,
        )

    async def stop_run(self, run: pb.RunRef, *, at_once: bool, discard: Discard) -> None:
        """Ask a part to stop. Raises DriverAway, NodeLost, NothingThere."""
        request = pb.StopRunRequest(run=run, at_once=at_once, discard=int(discard))
        await answered(self._stub.StopRun(request, timeout=_CALL), term=run.term)

    async def kill_run(self, run: pb.RunRef) -> None:
        """End a part; nothing of it lives afterwards. Raises DriverAway, NodeLost."""
        await answered(self._stub.KillRun(pb.KillRunRequest(run=run), timeout=_CALL), term=run.term)

    async def forget_run(self, run: pb.RunRef) -> None:
        """Remove what a node keeps of a part that has ended. Raises DriverAway, NodeLost."""
        await answered(
            self._stub.ForgetRun(pb.ForgetRunRequest(run=run), timeout=_CALL), term=run.term
        )

    async def list_runs(self, node_id: str) -> list[tuple[str, int]]:
        """Return the runs of which a node keeps anything: the job's id and the number of each.

        Raises DriverAway, NodeLost.
        """
        request = pb.ListRunsRequest(node_id=node_id)
        answer = await answered(self._stub.ListRuns(request, timeout=_CALL))
        return [(run.job_id, run.run) for run in answer.runs]

    async def request_nodes(self, request: pb.RequestNodesRequest) -> None:
        """Have the cluster grow to have room for these. Raises DriverAway."""
        await answered(self._stub.RequestNodes(request, timeout=_CALL))
