"""Settings of the nodes: this machine, and those that are only declared."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, parsed
from app.configuration.values import parse_count
from app.coordinator.cluster.node_specs import NodeSpec
from app.coordinator.settings.values import parse_node_id
from app.coordinator.settings.virtual_nodes import parse_virtual_nodes

_NO_NODES: tuple[NodeSpec, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NodeSettings(Section):
    """Nodes."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"

    node_id: str = parsed("local", "Name of this machine as a node.", parse_node_id)
    cpus: int = parsed(
        0,
        "Cores of this machine that jobs can ask for; all of them if not set. The same number of "
        "jobs that ask for no cores can run beside those that do.",
        parse_count,
        example="4",
    )
    virtual_nodes: tuple[NodeSpec, ...] = parsed(
        _NO_NODES,
        "Nodes that are declared but do not exist: their GPUs are accounted for, their jobs run "
        "here. `<name>:<count>x<GPU type>`, then any of `:cpus=`, `:memory=` and labels.",
        parse_virtual_nodes,
        example="a100-1:8xA100-80GB:zone=a",
        separator=",",
    )
