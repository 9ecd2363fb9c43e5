"""What this machine has."""

import os
import socket

import psutil

from app.coordinator.cluster.gpus import Nvml
from app.coordinator.cluster.node_specs import NodeSpec


def this_machine(*, node_id: str, cpus: int) -> NodeSpec:
    """Return the node that this machine is; `cpus` 0 means all that it has."""
    nvml = Nvml.open()
    return NodeSpec(
        node_id=node_id,
        hostname=socket.gethostname(),
        cpus=cpus or os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        gpus=nvml.specs() if nvml is not None else (),
    )
