"""The nodes of a Ray cluster as the driver sees them: who lives, what each has and is fit for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from app.coordinator.engines.agent.examining import (
    NodeExamination,
    difference,
    examine_node,
    versions,
)
from app.coordinator.engines.agent.leftovers import kept_runs
from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.ray.driver_settings import NODE_LABEL
from app.coordinator.engines.ray.idle_workers import end_idle_workers
from app.coordinator.engines.ray.node import NodeLost, RayNode, by_name, node_of
from app.coordinator.failures import FailureBackoff

#: Seconds between two looks at Ray's table of nodes.
LOOK: Final = 0.5
#: Seconds that what is done on one may take.
_EXAMINATION: Final = 120.0

log = structlog.get_logger("scaimind.coordinator")


class RayNodes:
    """Follows the table of nodes. Everything but the examinations runs on one event loop."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._nodes: dict[str, RayNode] = {}
        self._examining: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Condition()
        self._version = 0
        #: Ray's ids of those whose names others have.
        self._nameless: set[str] = set()
        self._versions = versions(Ray=ray.__version__)

    def of(self, node_id: str) -> RayNode:
        """Return a node. Raises NodeLost."""
        try:
            return self._nodes[node_id]
        except KeyError:
            raise NodeLost(node_id) from None

    def settings_of(self, node: RayNode) -> NodeSettings:
        """Return what an agent is told there."""
        found = node.examination.isolation if node.examination is not None else None
        return self._settings.with_node(node.node_id, cpus=max(node.cpus, 1), found=found)

    async def kept_runs(self, node_id: str) -> list[tuple[str, int]]:
        """Return the runs of which a node keeps anything. Raises NodeLost, RayError,
        TimeoutError."""
        node = self.of(node_id)
        settings = self._settings.with_node(node_id, cpus=max(node.cpus, 1))
        found: list[tuple[str, int]] = await _done_on(node, _kept_here, settings.encoded())
        return found

    async def end_idle_workers(self, node_id: str) -> int:
        """End this driver's workers on a node that do nothing; returns how many. Raises NodeLost,
        RayError, TimeoutError."""
        ended: int = await _done_on(self.of(node_id), end_idle_workers)
        return ended

    async def watch(self) -> AsyncIterator[list[RayNode]]:
        """Yield all nodes, at once and whenever anything about one changes."""
        seen = 0
        while True:
            async with self._changed:
                while self._version == seen:
                    await self._changed.wait()
                seen = self._version
            yield sorted(self._nodes.values(), key=lambda node: node.node_id)

    async def follow(self) -> None:
        """Look at Ray's table again and again. Ends with what Ray raises."""
        try:
            while True:
                await asyncio.sleep(LOOK)
                await self.look()
        finally:
            for task in tuple(self._examining.values()):
                task.cancel()

    async def look(self) -> None:
        """Look at Ray's table. Before the first look no node is known. Raises what Ray does."""
        table = await asyncio.to_thread(ray.nodes)
        found = [node for row in table if row["Alive"] and (node := node_of(row)) is not None]
        living, nameless = by_name(found, self._nodes)
        self._tell(nameless, living)
        if living == self._nodes and self._version:
            return
        self._nodes = living
        for node in living.values():
            if not node.is_sound:
                log.error("node_refused", node_id=node.node_id, reason=node.problem)
            elif node.examination is None and node.ray_id not in self._examining:
                task = asyncio.create_task(
                    self._examine(node), name=f"examination of {node.node_id}"
                )
                self._examining[node.ray_id] = task
                task.add_done_callback(partial(self._examined, node.ray_id))
        await self._announce()

    def _tell(self, nameless: Sequence[RayNode], living: Mapping[str, RayNode]) -> None:
        """Log once of each node that takes no jobs, since another one has its name."""
        for node in nameless:
            if node.ray_id not in self._nameless:
                log.warning(
                    "node_name_taken",
                    node_id=node.node_id,
                    address=node.address,
                    taken_by=living[node.node_id].address,
                    advice=f"Give each node a label {NODE_LABEL} of its own. One that has just"
                    " returned gets its name back by itself.",
                )
        self._nameless = {node.ray_id for node in nameless}

    async def _announce(self) -> None:
        async with self._changed:
            self._version += 1
            self._changed.notify_all()

    def _examined(self, ray_id: str, _: "asyncio.Task[None]") -> None:
        # One that was not in the table for a look is examined anew.
        del self._examining[ray_id]

    async def _examine(self, node: RayNode) -> None:
        """Find out whether runs can be carried out on a node; tried again while it lives."""
        settings = self._settings.with_node(node.node_id, cpus=max(node.cpus, 1))
        backoff = FailureBackoff()
        while (current := self._nodes.get(node.node_id)) and current.ray_id == node.ray_id:
            try:
                answer = await _done_on(node, _examined_here, settings.encoded(), ray.__version__)
            except Exception as error:  # whatever that machine lacks: it takes no jobs until then
                seconds = backoff.after_failure()
                if backoff.worth_a_line:
                    log.error("node_not_examined", node_id=node.node_id, exc_info=error)
                problem = f"It could not be examined: {type(error).__name__}."
                await self._found(node, None, problem)
                await asyncio.sleep(seconds)
                continue
            found = NodeExamination.decoded(answer)
            problem = found.problem
            if differ := difference(self._versions, found.versions):
                problem = (
                    f"It has other versions than the coordinator: {differ}. Install the"
                    " coordinator's there, and start its Ray again."
                )
            if problem:
                log.error("node_refused", node_id=node.node_id, reason=problem)
            await self._found(node, found, problem)
            return

    async def _found(self, node: RayNode, found: NodeExamination | None, problem: str) -> None:
        current = self._nodes.get(node.node_id)
        if current is None or current.ray_id != node.ray_id:
            return
        hostname = found.hostname if found is not None else current.hostname
        self._nodes = {
            **self._nodes,
            node.node_id: replace(current, hostname=hostname, examination=found, problem=problem),
        }
        await self._announce()


async def _done_on(node: RayNode, work: Callable[..., Any], *arguments: Any) -> Any:
    """Have a function called on a node; returns what it does. Raises RayError, TimeoutError."""
    strategy = NodeAffinitySchedulingStrategy(node.ray_id, soft=False)
    remote: Any = ray.remote(work).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
    async with asyncio.timeout(_EXAMINATION):
        return await remote.remote(*arguments)


def _examined_here(settings: bytes, version: str) -> bytes:
    return examine_node(NodeSettings.decoded(settings), Ray=version).encoded()


def _kept_here(settings: bytes) -> list[tuple[str, int]]:
    return kept_runs(NodeSettings.decoded(settings))
