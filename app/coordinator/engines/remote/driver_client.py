"""The calls of a driver, with failures as exceptions of the engine."""

from collections.abc import AsyncGenerator, Awaitable
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.failures import LeadershipLost
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb
from generated.mindcoordinator.internal.v1.engine_pb2_grpc import EngineDriverCoordinatorStub

_MESSAGE: Final = 64 * 1024 * 1024
#: Seconds that a call may take. Making an agent takes most of it.
_CALL: Final = 120.0


class DriverAway(Exception):
    """The driver, or the agent behind it, cannot be asked at the moment. For operators."""


class NodeLost(Exception):
    """The node is not part of the cluster, or not any more."""


class NothingThere(Exception):
    """The node has nothing of the run: it was never started there, or the disk is lost."""


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
        async for nodes in _stream(self._stub.WatchNodes(pb.WatchNodesRequest())):
            yield nodes

    async def open_run(self, run: pb.RunRef) -> int:
        """Have an agent there; returns a port of its node. Raises as `start_run` does."""
        answer = await _call(
            self._stub.OpenRun(pb.OpenRunRequest(run=run), timeout=_CALL), run.term
        )
        port: int = answer.meeting_port
        return port

    async def start_run(self, run: pb.RunRef, part: bytes) -> None:
        """Start a part of a run unless it was started before.

        Raises DriverAway, NodeLost, CannotLaunch; as every call about a run,
        LeadershipLost if a higher term is known there.
        """
        await _call(
            self._stub.StartRun(pb.StartRunRequest(run=run, part=part), timeout=_CALL), run.term
        )

    async def stop_run(self, run: pb.RunRef, *, at_once: bool) -> None:
        """Ask a part to stop. Raises DriverAway, NodeLost, NothingThere."""
        request = pb.StopRunRequest(run=run, at_once=at_once)
        await _call(self._stub.StopRun(request, timeout=_CALL), run.term)

    async def kill_run(self, run: pb.RunRef) -> None:
        """End a part; nothing of it lives afterwards. Raises DriverAway, NodeLost."""
        await _call(self._stub.KillRun(pb.KillRunRequest(run=run), timeout=_CALL), run.term)

    async def watch_run(
        self, run: pb.RunRef, *, epoch: str, after_line: int, after_snapshot: int
    ) -> AsyncGenerator[pb.RunRecords, None]:
        """Yield what a part has recorded, up to its end.

        Raises DriverAway, NodeLost, NothingThere.
        """
        request = pb.WatchRunRequest(
            run=run, epoch=epoch, after_line=after_line, after_snapshot=after_snapshot
        )
        async for records in _stream(self._stub.WatchRun(request), run.term):
            yield records

    async def forget_run(self, run: pb.RunRef) -> None:
        """Remove what a node keeps of a part that has ended. Raises DriverAway, NodeLost."""
        await _call(self._stub.ForgetRun(pb.ForgetRunRequest(run=run), timeout=_CALL), run.term)

    async def keep_runs(self, request: pb.KeepRunsRequest) -> None:
        """Have removed what nodes keep of all other runs. Raises DriverAway."""
        await _call(self._stub.KeepRuns(request, timeout=_CALL), request.term)

    async def request_nodes(self, request: pb.RequestNodesRequest) -> None:
        """Have the cluster grow to have room for these. Raises DriverAway."""
        await _call(self._stub.RequestNodes(request, timeout=_CALL))


async def _call(call: Awaitable[Any], term: int = 0) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        _translated(error, term)


async def _stream(call: Any, term: int = 0) -> AsyncGenerator[Any, None]:
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        _translated(error, term)
    finally:
        call.cancel()


def _translated(error: grpc.aio.AioRpcError, term: int) -> NoReturn:
    text = error.details() or ""
    match error.code():
        case grpc.StatusCode.FAILED_PRECONDITION:
            raise CannotLaunch(text) from None
        case grpc.StatusCode.NOT_FOUND:
            raise NodeLost(text) from None
        case grpc.StatusCode.DATA_LOSS:
            raise NothingThere(text) from None
        case grpc.StatusCode.ABORTED:
            # The driver answers with the highest term.
            raise LeadershipLost(int(text or 0), term) from None
        case _:
            raise DriverAway(f"{error.code().name}: {text}") from error
