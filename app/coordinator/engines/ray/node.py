"""A node of a Ray cluster, from a row of Ray's own table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.coordinator.engines.agent.examining import NodeExamination
from app.coordinator.engines.ray.driver_settings import GPU_LABEL, NODE_LABEL

_EXAMINED: Final = "It is being examined."
#: What no name of a folder has here: a node's records have one. `..` would be another one.
_NAME: Final = re.compile(r"^\.+|[^A-Za-z0-9._-]")
_SIZE: Final = re.compile(r"-(\d+)GB$")


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
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if not cpus and not gpus:
        return None
    name = labels.get(NODE_LABEL) or row["NodeName"] or row["NodeManagerHostname"]
    return RayNode(
        node_id=_NAME.sub("-", name)[:63],
        ray_id=row["NodeID"],
        address=row["NodeManagerAddress"],
        hostname=row["NodeManagerHostname"],
        cpus=cpus,
        memory=int(resources.get("memory", 0)),
        gpu_count=gpus,
        labels={key: value for key, value in labels.items() if key != "ray.io/node-id"},
    )
