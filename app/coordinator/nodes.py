"""What this machine has."""

import os
import shutil
import socket
import subprocess
from typing import Final

import psutil

from .cluster import GpuSpec, NodeSpec
from .config import CoordinatorConfig

_MIB: Final = 1024**2
_PATIENCE: Final = 5.0


def this_machine(config: CoordinatorConfig) -> NodeSpec:
    """The node that this machine is."""
    return NodeSpec(
        node_id=config.node_id,
        hostname=socket.gethostname(),
        cpus=config.cpus or os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        gpus=_gpus(),
    )


def _gpus() -> tuple[GpuSpec, ...]:
    """The GPUs that the NVIDIA driver tells of; none where there is no driver."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    try:
        answer = subprocess.run(
            [command, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        ).stdout
    except (subprocess.SubprocessError, OSError):
        return ()
    gpus = []
    for line in answer.splitlines():
        name, _, memory = line.rpartition(",")
        if name and memory.strip().isdecimal():
            label = name.strip().removeprefix("NVIDIA ").replace(" ", "-")
            gpus.append(GpuSpec(label, int(memory) * _MIB))
    return tuple(gpus)
