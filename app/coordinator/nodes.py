"""What this machine has."""

import os
import socket

import psutil

from .cluster import NodeSpec
from .config import CoordinatorConfig
from .gpus import Nvml


def this_machine(config: CoordinatorConfig) -> NodeSpec:
    """The node that this machine is."""
    nvml = Nvml.open()
    return NodeSpec(
        node_id=config.node_id,
        hostname=socket.gethostname(),
        cpus=config.cpus or os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        gpus=nvml.specs() if nvml is not None else (),
    )
