"""The actors of runs: made where the scheduler placed the run, found by their names."""

import asyncio
import re
from typing import Any, Final

import ray
import structlog
from ray.exceptions import RayError
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from app.coordinator.engines.agent.answers import Answer
from app.coordinator.engines.ray.agent_host import AgentHost
from app.coordinator.engines.ray.nodes import RayNodes
from app.coordinator.engines.ray.service import Unavailable
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRef

#: Seconds until an actor must be there: what it holds may be somebody's whose run has just ended.
_START: Final = 60.0
#: Calls that an actor answers at the same time. All are short.
_CONCURRENCY: Final = 32
#: So much of the resource that each node has of its own, so that an autoscaler sees it used.
_PRESENCE: Final = 0.001
#: How `_name` names an actor.
_NAME: Final = re.compile(r"([^/@]+)/(\d+)@(.+)")

log = structlog.get_logger("scaimind.coordinator")


class RayAgents:
    """Makes and asks them. On one event loop."""

    def __init__(
        self, nodes: RayNodes, *, namespace: str, host: type[AgentHost] = AgentHost
    ) -> None:
        """`namespace` is the driver's, and an actor is a `host`."""
        self._nodes = nodes
        self._namespace = namespace
        self._host = host
        self._known: dict[str, Any] = {}
        self._making: dict[str, asyncio.Lock] = {}

    async def ask(self, run: RunRef, method: str, *arguments: Any) -> Answer:
        """Call a method of the run's agent, which is made if it is not there.

        Raises NodeLost, Unavailable.
        """
        name = _name(run)
        try:
            actor = self._known.get(name) or await self._found(run)
            answer: Answer = await getattr(actor, method).remote(run.term, *arguments)
        except RayError as error:
            self._known.pop(name, None)
            # A node that is gone is told of as such.
            self._nodes.of(run.node_id)
            raise Unavailable(f"{type(error).__name__} of {name}") from error
        return answer

    async def there(self, node_id: str) -> list[RunRef]:
        """Return the runs that have agents on a node, and those of which it keeps anything.

        Raises NodeLost, Unavailable.
        """
        try:
            found = set(await self._nodes.kept_runs(node_id))
            names = await asyncio.to_thread(list_named_actors)
        except (RayError, TimeoutError) as error:
            # A node that is gone is told of as such.
            self._nodes.of(node_id)
            raise Unavailable(f"{type(error).__name__} of node {node_id}") from error
        matches = filter(None, map(_NAME.fullmatch, names))
        found |= {(match[1], int(match[2])) for match in matches if match[3] == node_id}
        return [RunRef(job_id=job_id, run=run, node_id=node_id) for job_id, run in sorted(found)]

    async def drop(self, run: RunRef) -> None:
        """End the actor. What it has started goes on."""
        if (actor := self._known.pop(_name(run), None)) is not None:
            await asyncio.to_thread(ray.kill, actor)

    async def _found(self, run: RunRef) -> Any:
        name = _name(run)
        async with self._making.setdefault(name, asyncio.Lock()):
            try:
                if name in self._known:
                    return self._known[name]
                actor: Any = await asyncio.to_thread(self._make, run, name)
                try:
                    async with asyncio.timeout(_START):
                        await actor.open.remote(run.term)
                except TimeoutError:
                    await self._give_up(run, actor)
                    raise Unavailable(f"{name} has not started in {_START:g} s") from None
                self._known[name] = actor
                return actor
            finally:
                self._making.pop(name, None)

    async def _give_up(self, run: RunRef, actor: Any) -> None:
        """Have another one made the next time. Raises RayError.

        What was being made when the control service restarted may never start,
        would be found by its name again, and may hold what the next one needs.
        """
        await asyncio.to_thread(ray.kill, actor)
        try:
            ended = await self._nodes.end_idle_workers(run.node_id)
        except TimeoutError:
            ended = 0
        log.warning("agent_given_up", job_id=run.job_id, node_id=run.node_id, workers=ended)

    def _make(self, run: RunRef, name: str) -> Any:
        node = self._nodes.of(run.node_id)
        host: Any = ray.remote(self._host)
        return host.options(
            name=name,
            namespace=self._namespace,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=0,
            max_concurrency=_CONCURRENCY,
            num_cpus=min(run.cpus, node.cpus),
            num_gpus=min(run.gpus, node.gpu_count),
            memory=min(run.memory_bytes, node.memory) or None,
            resources={f"node:{node.address}": _PRESENCE},
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.ray_id, soft=False),
        ).remote(self._nodes.settings_of(node).encoded(), run.job_id, run.run, node.address)


def _name(run: RunRef) -> str:
    return f"{run.job_id}/{run.run}@{run.node_id}"
