"""A node of a Ray cluster, from a row of Ray's own table."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from app.coordinator.engines.agent.examining import NodeExamination
from app.coordinator.engines.ray.driver_settings import GPU_LABEL, NODE_LABEL

_EXAMINED: Final = "It is being examined."
#: What no name of a folder has here: a node's records have one. `..` would be another one.
_NAME: Final = re.compile(r"^\.+|[^A-Za-z0-9._-]")
_SIZE: Final = re.compile(r"-([0-9]{1,6})GB$")
#: The most that a machine has of each resource. Whoever starts a node can say any number.
_MOST: Final = {"CPU": 1 << 16, "GPU": 1024, "memory": 1 << 60}


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node that lives."""

    node_id: str
    #: Ray's own id, which is another one when the node returns.
    ray_id: str
    address: str
    hostname: str
    cpus: int
    memory: int
    gpu_count: int
    labels: Mapping[str, str]
    examination: NodeExamination | None = None
    problem: str = _EXAMINED
    #: What it says of itself can be true; else `problem` says what cannot.
    is_sound: bool = True

    def as_known(self, before: "RayNode | None") -> "RayNode":
        """Return it with what was found out about it before, if that is the same node."""
        if before is None or before.ray_id != self.ray_id or not self.is_sound:
            return self
        return replace(
            self,
            hostname=before.hostname,
            examination=before.examination,
            problem=before.problem if before.is_sound else _EXAMINED,
        )

    @property
    def gpus(self) -> list[tuple[str, int]]:
        """Type and bytes of each GPU."""
        found = self.examination.gpus if self.examination is not None else ()
        if len(found) >= self.gpu_count:
            return list(found[: self.gpu_count])
        name = self.labels.get(GPU_LABEL) or self.labels.get("ray.io/accelerator-type") or "GPU"
        size = _SIZE.search(name)
        return [(name, int(size[1]) * 1024**3 if size else 0)] * self.gpu_count


class NodeLost(Exception):
    """The node is not part of the cluster, or not any more."""


def node_of(row: Mapping[str, Any]) -> RayNode | None:
    """Return a row of Ray's table as a node; None if jobs can have nothing of it."""
    resources, labels = row["Resources"], dict(row["Labels"])
    has = {name: resources.get(name, 0) for name in _MOST}
    # Not below it either, and no number that is none.
    wrong = [name for name, most in _MOST.items() if not 0 <= has[name] <= most]
    found = {name: 0 if name in wrong else int(has[name]) for name in _MOST}
    if not (found["CPU"] or found["GPU"] or wrong):
        return None
    name = labels.get(NODE_LABEL) or row["NodeName"] or row["NodeManagerHostname"]
    node = RayNode(
        node_id=_NAME.sub("-", name)[:63],
        ray_id=row["NodeID"],
        address=row["NodeManagerAddress"],
        hostname=row["NodeManagerHostname"],
        cpus=found["CPU"],
        memory=found["memory"],
        gpu_count=found["GPU"],
        labels={key: value for key, value in labels.items() if key != "ray.io/node-id"},
    )
    if not wrong:
        return node
    says = ", ".join(f"{name} {has[name]:g} (at most {_MOST[name]})" for name in wrong)
    problem = f"It was started with resources that no machine has: {says}."
    return replace(node, is_sound=False, problem=problem)


def by_name(
    found: Iterable[RayNode], known: Mapping[str, RayNode]
) -> tuple[dict[str, RayNode], list[RayNode]]:
    """Return the nodes by their names, with what is known of them, and those whose name another
    one has: the one that had it first keeps it."""
    nodes: dict[str, RayNode] = {}
    nameless: list[RayNode] = []
    for node in found:
        before, other = known.get(node.node_id), nodes.get(node.node_id)
        if other is not None:
            if before is None or before.ray_id != node.ray_id:
                nameless.append(node)
                continue
            nameless.append(other)
        nodes[node.node_id] = node.as_known(before)
    return nodes, nameless
