"""What a driver is told when it starts, in one line of JSON on its stdin."""

from dataclasses import dataclass
from typing import Self

import orjson

from app.coordinator.engines.agent.node_settings import NodeSettings

#: Of a node: its name, which it has again when it returns, and its GPUs' type, such as
#: `A100-80GB`, where the machine does not tell it.
NODE_LABEL = "scaimind/node"
GPU_LABEL = "scaimind/gpu-type"


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Where the driver listens, and what it connects to."""

    socket: str
    #: Of the cluster's control service, host:port.
    address: str
    nodes: NodeSettings

    @property
    def namespace(self) -> str:
        """Ray's namespace of this coordinator's actors: others may use the cluster, too."""
        return f"scaimind-{self.nodes.owner}"

    def encoded(self) -> bytes:
        """Return them as a line."""
        about = {"socket": self.socket, "address": self.address}
        return orjson.dumps({**about, "nodes": orjson.Fragment(self.nodes.encoded())}) + b"\n"

    @classmethod
    def decoded(cls, line: bytes) -> Self:
        """Read what `encoded` returned."""
        value = orjson.loads(line)
        nodes = NodeSettings.decoded(orjson.dumps(value["nodes"]))
        return cls(value["socket"], value["address"], nodes)
