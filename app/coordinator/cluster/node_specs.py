"""What a node has, whether a machine was asked or the configuration declares it.

The settings of every program import it, and so it imports nothing of the jobs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One GPU of a node."""

    type: str
    #: Bytes; 0 where it is not known.
    memory: int


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a node has."""

    node_id: str
    hostname: str
    cpus: int
    #: Bytes.
    memory: int
    gpus: tuple[GpuSpec, ...] = ()
    #: Declared in the configuration: its GPUs are accounted, its jobs run on this machine.
    virtual: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node as an engine knows it."""

    spec: NodeSpec
    #: Why nothing can start there, in a sentence; empty if it can.
    problem: str = ""
