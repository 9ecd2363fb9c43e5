"""The notation of virtual nodes in the configuration."""

import re
from typing import Final

from app.configuration.values import parse_count, parse_size
from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec

_NODE: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62}):(\d+)x([A-Za-z0-9][A-Za-z0-9._-]*)")
_GPU_MEMORY: Final = re.compile(r"-(\d+)GB$")


def parse_virtual_nodes(text: str) -> tuple[NodeSpec, ...]:
    """Read nodes such as `a100-1:8xA100-80GB,big:4xH100-80GB:cpus=64:memory=512GiB:zone=a`.

    Each is `<name>:<count>x<GPU type>`, then any of `cpus=` (default 8 for
    each GPU), `memory=` (default 64 GiB for each GPU) and labels. A GPU type
    that ends in `-<n>GB` has that memory. Raises ValueError.
    """
    nodes = [_virtual_node(part) for part in text.split(",") if part.strip()]
    names = [node.node_id for node in nodes]
    if len(set(names)) < len(names):
        raise ValueError("two nodes have the same name")
    return tuple(nodes)


def _virtual_node(text: str) -> NodeSpec:
    match = _NODE.match(text := text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not of the form <name>:<count>x<GPU type>")
    name, count, gpu_type = match[1], int(match[2]), match[3]
    if not 0 < count <= 1024:
        raise ValueError(f"{text!r}: a node has 1 to 1024 GPUs")
    rest = text[match.end() :]
    settings = {}
    for setting in rest.split(":")[1:]:
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise ValueError(f"{text!r}: {setting!r} is not of the form <key>=<value>")
        settings[key] = value
    if rest and not rest.startswith(":"):
        raise ValueError(f"{text!r}: {rest!r} is not valid here")
    size = _GPU_MEMORY.search(gpu_type)
    return NodeSpec(
        node_id=name,
        hostname=name,
        cpus=parse_count(settings.pop("cpus", str(8 * count))),
        memory=parse_size(settings.pop("memory", f"{64 * count}GiB")),
        gpus=(GpuSpec(gpu_type, int(size[1]) * 1024**3 if size else 0),) * count,
        virtual=True,
        labels=settings,
    )
