"""The driver's service: the contract of `mindcoordinator.internal.v1` by means of Ray."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, Protocol

import grpc
import grpc.aio
import structlog
from typing_extensions import override

from app.coordinator.engines.agent.answers import DONE, STATUS_CODES, Answer
from app.coordinator.engines.agent.protocol import PROTOCOL, told
from app.coordinator.engines.ray.node import NodeLost, RayNode
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb
from generated.mindcoordinator.internal.v1.engine_pb2_grpc import EngineDriverCoordinatorServicer

Context = grpc.aio.ServicerContext[Any, Any]
#: Seconds until an agent that speaks another protocol, as the one before it, is replaced again.
_REPLACED_AGAIN: Final = 60.0

log = structlog.get_logger("scaimind.coordinator")


class Unavailable(Exception):
    """The agent cannot be asked at the moment. The message is for operators."""


class NodeSource(Protocol):
    """The nodes of the cluster."""

    def watch(self) -> AsyncIterator[Sequence[RayNode]]:
        """Yield all nodes, at once and whenever anything about one changes."""


class AgentSource(Protocol):
    """The agents of runs on those nodes."""

    async def ask(self, run: pb.RunRef, method: str, *arguments: Any) -> Answer:
        """Call a method of the run's `AgentHost`, with the term and these arguments; it is made
        if it is not there.

        Raises NodeLost, Unavailable.
        """

    async def there(self, node_id: str) -> Sequence[pb.RunRef]:
        """Return the runs that have agents on a node, and those of which it keeps anything.

        Raises NodeLost, Unavailable.
        """

    async def drop(self, run: pb.RunRef) -> None:
        """End the agent. What it has started goes on."""


class DriverService(EngineDriverCoordinatorServicer):
    """Answers one coordinator."""

    def __init__(
        self,
        *,
        nodes: NodeSource,
        agents: AgentSource,
        request: Callable[[list[dict[str, int]]], None],
    ) -> None:
        """`request` asks the cluster to have room for these resources; it blocks."""
        self._nodes = nodes
        self._agents = agents
        self._request = request
        #: When agents may be replaced once more, by job, run and node.
        self._not_before: dict[tuple[str, int, str], float] = {}

    @override
    async def WatchNodes(
        self, request: pb.WatchNodesRequest, context: Context
    ) -> AsyncIterator[pb.Nodes]:
        async for nodes in self._nodes.watch():
            yield pb.Nodes(nodes=map(message_of, nodes))

    @override
    async def OpenRun(self, request: pb.OpenRunRequest, context: Context) -> pb.OpenRunResponse:
        opened = await self._opened(context, request.run)
        if (theirs := _protocol(opened)) != PROTOCOL and self._may_replace(request.run):
            log.warning("agent_replaced", job_id=request.run.job_id, protocol=theirs)
            # Another release has made it. What it has started goes on, and the next one finds it.
            await self._agents.drop(request.run)
            opened = await self._opened(context, request.run)
            theirs = _protocol(opened)
        if theirs != PROTOCOL:
            await _abort(context, grpc.StatusCode.UNIMPLEMENTED, str(theirs))
        port, address, secret = opened[:3]
        return pb.OpenRunResponse(meeting_port=port, agent_address=address, agent_secret=secret)

    @override
    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        await self._ask(context, request.run, "start", request.part)
        return pb.StartRunResponse()

    @override
    async def StopRun(self, request: pb.StopRunRequest, context: Context) -> pb.StopRunResponse:
        await self._ask(context, request.run, "stop", request.at_once, request.discard)
        return pb.StopRunResponse()

    @override
    async def KillRun(self, request: pb.KillRunRequest, context: Context) -> pb.KillRunResponse:
        await self._ask(context, request.run, "kill")
        return pb.KillRunResponse()

    @override
    async def ForgetRun(
        self, request: pb.ForgetRunRequest, context: Context
    ) -> pb.ForgetRunResponse:
        await self._ask(context, request.run, "forget")
        await self._agents.drop(request.run)
        return pb.ForgetRunResponse()

    @override
    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        async with _failures(context):
            return pb.ListRunsResponse(runs=await self._agents.there(request.node_id))

    @override
    async def RequestNodes(
        self, request: pb.RequestNodesRequest, context: Context
    ) -> pb.RequestNodesResponse:
        bundles = [
            {
                name: amount
                for name, amount in (
                    ("CPU", node.cpus),
                    ("GPU", node.gpus),
                    ("memory", node.memory_bytes),
                )
                if amount
            }
            for node in request.nodes
        ]
        await asyncio.to_thread(self._request, [each for each in bundles if each])
        return pb.RequestNodesResponse()

    async def _opened(self, context: Context, run: pb.RunRef) -> tuple[Any, ...]:
        opened: tuple[Any, ...] = await self._ask(context, run, "open")
        return opened

    def _may_replace(self, run: pb.RunRef) -> bool:
        """Whether to have an agent made anew: not again and again, on a node that has no other."""
        key, now = (run.job_id, run.run, run.node_id), time.monotonic()
        if now < self._not_before.get(key, now):
            return False
        self._not_before = {each: at for each, at in self._not_before.items() if at > now}
        self._not_before[key] = now + _REPLACED_AGAIN
        return True

    async def _ask(self, context: Context, run: pb.RunRef, method: str, *arguments: Any) -> Any:
        async with _failures(context):
            kind, value = await self._agents.ask(run, method, *arguments)
        if kind != DONE:
            await _abort(context, STATUS_CODES[kind], value)
        return value


@asynccontextmanager
async def _failures(context: Context) -> AsyncIterator[None]:
    """Have the coordinator told what keeps a node's agents from answering."""
    try:
        yield
    except NodeLost as error:
        await _abort(context, grpc.StatusCode.NOT_FOUND, f"{error} is lost")
    except Unavailable as error:
        await _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))


async def _abort(context: Context, code: grpc.StatusCode, text: str) -> NoReturn:
    await context.abort(code, text)
    raise AssertionError("abort raises")


def _protocol(opened: Sequence[Any]) -> int:
    """Return which protocol an agent speaks, as its answer to `open` has it behind the rest."""
    number = opened[3] if len(opened) > 3 else 0
    return told(number if type(number) is int else 0)


def message_of(node: RayNode) -> pb.EngineNode:
    """Return a node as the coordinator is told of it."""
    return pb.EngineNode(
        node_id=node.node_id,
        hostname=node.hostname,
        address=node.address,
        cpus=node.cpus,
        memory_bytes=node.memory,
        gpus=[pb.EngineGpu(type=name, memory_bytes=size) for name, size in node.gpus],
        labels=dict(node.labels),
        problem=node.problem,
    )
