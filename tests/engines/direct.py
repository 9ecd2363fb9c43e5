"""A cluster without Ray: the driver's service and the agents of three nodes in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from app.coordinator.driver.node_host import NodeAgentHost
from app.coordinator.engines.agent.answers import Answer
from app.coordinator.engines.agent.leftovers import kept_runs
from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.local.opening import open_local_engine
from app.coordinator.engines.local.runner.recording import RecordBounds
from app.coordinator.engines.ray.node import NodeLost, RayNode
from app.coordinator.engines.ray.service import DriverService, Unavailable
from app.coordinator.engines.remote.driver_client import DriverClient
from app.coordinator.engines.remote.driver_process import DriverProcess
from app.coordinator.engines.remote.engine import RemoteEngine
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.server import Coordinator
from app.coordinator.settings.coordinator import CoordinatorConfig
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRef
from generated.mindcoordinator.internal.v1.engine_pb2_grpc import (
    add_EngineDriverCoordinatorServicer_to_server,
)
from tests.coordinator.harness import Client, running


class NoProcess(DriverProcess):
    """A driver that is in this process."""

    def __init__(self) -> None:
        super().__init__("", settings=b"", environment={}, errors=Path())


@dataclass
class DirectCluster:
    """Nodes with two GPUs and two cores each; each with a process that stands for it."""

    socket: str
    settings: NodeSettings
    nodes: dict[str, RayNode] = field(default_factory=dict)
    keepers: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    hosts: dict[tuple[str, int, str], NodeAgentHost] = field(default_factory=dict)
    requested: list[list[dict[str, int]]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    server: grpc.aio.Server | None = None
    #: What agents are from now on.
    host: Callable[..., NodeAgentHost] = NodeAgentHost
    #: While it is set, agents cannot be reached through the driver.
    away: bool = False
    #: Set when that kept somebody from asking one.
    refused: asyncio.Event = field(default_factory=asyncio.Event)

    # What the driver's service asks for.

    async def watch(self) -> AsyncIterator[Sequence[RayNode]]:
        while True:
            nodes = list(self.nodes.values())
            yield nodes
            async with self.changed:
                while list(self.nodes.values()) == nodes:
                    await self.changed.wait()

    async def ask(self, run: RunRef, method: str, *arguments: Any) -> Answer:
        if run.node_id not in self.nodes:
            raise NodeLost(run.node_id)
        if self.away:
            self.refused.set()
            raise Unavailable("the agents are away")
        key = (run.job_id, run.run, run.node_id)
        if (host := self.hosts.get(key)) is None:
            settings = self.settings.with_node(run.node_id, cpus=2, found=self.settings.found)
            keeper = self.keepers[run.node_id].pid
            about = (settings.encoded(), run.job_id, run.run, "127.0.0.1")
            host = self.hosts[key] = self.host(*about, keeper)
        answer: Answer = await getattr(host, method)(run.term, *arguments)
        if self.hosts.get(key) is not host:
            raise Unavailable("the agent has died")
        return answer

    async def there(self, node_id: str) -> list[RunRef]:
        if node_id not in self.nodes:
            raise NodeLost(node_id)
        found = set(kept_runs(self.settings.with_node(node_id, cpus=2)))
        found |= {(job_id, run) for job_id, run, node in self.hosts if node == node_id}
        return [RunRef(job_id=job_id, run=run, node_id=node_id) for job_id, run in found]

    async def drop(self, run: RunRef) -> None:
        if host := self.hosts.pop((run.job_id, run.run, run.node_id), None):
            await host.close()

    # What happens to it.

    async def join(self, node_id: str) -> None:
        """Have a node, or have one back."""
        keeper = await asyncio.create_subprocess_exec("sleep", "600")
        self.keepers[node_id] = keeper
        node = RayNode(node_id, f"ray-{keeper.pid}", "127.0.0.1", node_id, 2, 1 << 34, 2, {})
        await self._set({**self.nodes, node_id: node})

    async def examined(self, node_id: str, problem: str = "") -> None:
        """Say what came out of a node's examination."""
        node = self.nodes[node_id]
        changed = RayNode(
            *(node.node_id, node.ray_id, node.address, node.hostname, node.cpus, node.memory),
            *(node.gpu_count, node.labels, None, problem),
        )
        await self._set({**self.nodes, node_id: changed})

    async def lose(self, node_id: str) -> None:
        """Kill what stands for a node, and its agents with it."""
        keeper = self.keepers.pop(node_id)
        keeper.kill()
        await keeper.wait()
        await self._set({key: node for key, node in self.nodes.items() if key != node_id})
        await self.kill_agents(node_id)

    async def kill_agents(self, node_id: str) -> None:
        """Have new ones made when they are asked."""
        for key in [key for key in self.hosts if key[2] == node_id]:
            await self.hosts.pop(key).close()

    async def restart_driver(self) -> None:
        """Have the driver's service die and come back."""
        assert self.server is not None
        await self.server.stop(None)
        await self.serve()

    async def serve(self) -> None:
        """Listen."""
        self.server = grpc.aio.server()
        service = DriverService(nodes=self, agents=self, request=self.requested.append)
        add_EngineDriverCoordinatorServicer_to_server(service, self.server)
        await asyncio.to_thread(Path(self.socket).unlink, missing_ok=True)
        self.server.add_insecure_port(f"unix:{self.socket}")
        await self.server.start()

    async def close(self) -> None:
        """End everything."""
        for node_id in list(self.keepers):
            await self.lose(node_id)
        if self.server is not None:
            await self.server.stop(None)

    async def _set(self, nodes: dict[str, RayNode]) -> None:
        self.nodes = nodes
        async with self.changed:
            self.changed.notify_all()


@asynccontextmanager
async def cluster(
    path: Path, socket: str, config: CoordinatorConfig
) -> AsyncIterator[DirectCluster]:
    """A cluster of three nodes that can be used."""
    local = await open_local_engine(config, readable=())
    found = local.isolation
    await local.close()
    settings = NodeSettings.of(config, directory=path / "nodes", isolation=found.level.value)
    about = {"level": found.level.value, "bwrap": found.bwrap, "filter": found.filter}
    direct = DirectCluster(socket, settings.with_node("", cpus=2, found=about))
    for node_id in ("n1", "n2", "n3"):
        await direct.join(node_id)
        await direct.examined(node_id)
    await direct.serve()
    try:
        yield direct
    finally:
        await direct.close()


@asynccontextmanager
async def coordinator_of(
    direct: DirectCluster, path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[tuple[Coordinator, Client]]:
    """A coordinator whose jobs run there."""

    async def open_engine(
        config: CoordinatorConfig, *, readable: tuple[str, ...], leadership: Leadership
    ) -> RemoteEngine:
        engine = RemoteEngine(
            local=await open_local_engine(config, readable=readable),
            jobs=config.data_dir / "jobs",
            # The three nodes are one machine, where a user id is one run's.
            uids=None,
            driver=NoProcess(),
            client=DriverClient(direct.socket),
            leadership=leadership,
            lost_node_patience=config.ray_lost_node_seconds,
            bounds=RecordBounds(log=config.job_log_bytes, metrics=config.job_metrics_bytes),
            sends_secrets=bool(config.drive_url),
            scratch=lambda: None,
        )
        await engine.open()
        return engine

    monkeypatch.setattr("app.coordinator.server.open_engine", open_engine)
    async with running(path / "data", **settings) as (coordinator, client):
        yield coordinator, client
