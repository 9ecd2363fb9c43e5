"""The nodes as the coordinator knows them: those that live, and those that were lost."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import structlog

from app.coordinator.cluster.node_specs import GpuSpec, NodeReport, NodeSpec
from app.coordinator.engines.remote.agent_faults import AgentFaults
from app.coordinator.engines.remote.calls import DriverAway
from app.coordinator.engines.remote.driver_client import DriverClient
from generated.mindcoordinator.internal.v1.engine_pb2 import EngineNode

#: Lost nodes that are remembered: the newest. An autoscaler gives each new node a new name.
_LOST = 100
#: Seconds between two attempts to reach a driver.
_AGAIN = 0.5

log = structlog.get_logger("scaimind.coordinator")


@dataclass(frozen=True, slots=True)
class _Lost:
    report: NodeReport
    #: On the monotonic clock.
    since: float


class KnownNodes:
    """Follows what the driver reports. Everything runs on one event loop."""

    def __init__(self, client: DriverClient, *, usable: Callable[[str], None]) -> None:
        """`usable` is called with the id of each node that joins or returns, once it can be
        used."""
        self._client = client
        self._usable = usable
        #: Of those that live.
        self._known_usable: set[str] = set()
        self._living: dict[str, EngineNode] = {}
        self._reports: dict[str, NodeReport] = {}
        self._lost: dict[str, _Lost] = {}
        self._changed: Callable[[Sequence[NodeReport]], None] = lambda _: None
        self._heard = asyncio.Event()
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        #: Those of the nodes' agents.
        self.faults = AgentFaults(changed=lambda: self._changed(self.reports()))

    async def start(self, *, patience: float) -> None:
        """Follow the nodes; returns when the first report is there, or after `patience`
        seconds."""
        self._task = asyncio.create_task(self._follow(), name="nodes of the engine's driver")
        try:
            async with asyncio.timeout(patience):
                await self._heard.wait()
        except TimeoutError:
            log.warning("nodes_not_reported", seconds=patience)

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def listen(self, changed: Callable[[Sequence[NodeReport]], None]) -> None:
        """Call `changed` with all nodes whenever they change, and now."""
        self._changed = changed
        changed(self.reports())

    def reports(self) -> tuple[NodeReport, ...]:
        """Return the nodes that live and those that were lost."""
        living = map(self._with_faults, self._reports.values())
        return (*living, *(each.report for each in self._lost.values()))

    def _with_faults(self, report: NodeReport) -> NodeReport:
        problem = report.problem or self.faults.problem(report.spec.node_id)
        return replace(report, problem=problem)

    def address(self, node_id: str) -> str:
        """Return where other nodes reach a node; empty if it does not live."""
        node = self._living.get(node_id)
        return node.address if node is not None else ""

    async def returned(self, node_id: str, *, patience: float) -> bool:
        """Wait for a lost node for `patience` seconds since it was lost; whether it is back."""
        lost = self._lost.get(node_id)
        until = (lost.since if lost is not None else time.monotonic()) + patience
        try:
            async with asyncio.timeout(max(until - time.monotonic(), 0)), self._news:
                while node_id not in self._living:
                    await self._news.wait()
        except TimeoutError:
            return node_id in self._living
        return True

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._client.nodes()) as messages:
                    async for message in messages:
                        await self._take(message.nodes)
            except DriverAway:
                # What is known stays so: without a driver nothing is known to be lost.
                await asyncio.sleep(_AGAIN)

    async def _take(self, nodes: Sequence[EngineNode]) -> None:
        living = {node.node_id: node for node in nodes}
        for node_id, report in self._reports.items():
            if node_id not in living:
                problem = "It is lost: the cluster has not heard of it."
                self._lost[node_id] = _Lost(NodeReport(report.spec, problem), time.monotonic())
                log.warning("node_lost", node_id=node_id)
        for node_id in living:
            if self._lost.pop(node_id, None) is not None:
                log.info("node_returned", node_id=node_id)
            elif node_id not in self._reports:
                log.info("node_joined", node_id=node_id)
        while len(self._lost) > _LOST:
            del self._lost[next(iter(self._lost))]
        self._living = living
        self._reports = {node_id: _report(node) for node_id, node in living.items()}
        usable = {node.node_id for node in nodes if not node.problem}
        for node_id in usable - self._known_usable:
            self._usable(node_id)
        self._known_usable = usable
        self._heard.set()
        self._changed(self.reports())
        async with self._news:
            self._news.notify_all()


def _report(node: EngineNode) -> NodeReport:
    spec = NodeSpec(
        node_id=node.node_id,
        hostname=node.hostname,
        cpus=node.cpus,
        memory=node.memory_bytes,
        gpus=tuple(GpuSpec(gpu.type, gpu.memory_bytes) for gpu in node.gpus),
        labels=dict(node.labels),
    )
    return NodeReport(spec, node.problem)
