"""How the coordinator is configured: `SCAIMIND_COORDINATOR_*`, read once."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .cluster import GpuSpec, NodeSpec

PREFIX: Final = "SCAIMIND_COORDINATOR_"
_GIB: Final = 1024**3
_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": _GIB, "T": 1024**4}
_NODE: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62}):(\d+)x([A-Za-z0-9][A-Za-z0-9._-]*)")
_GPU_MEMORY: Final = re.compile(r"-(\d+)GB$")


class BadConfig(Exception):
    """A setting is wrong; the message names it and says what it may be."""


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """Every setting of the coordinator. Times are in seconds, sizes in bytes."""

    #: Where it keeps its database and the jobs' files.
    data_dir: Path
    #: What every caller must know.
    api_secret: str = field(repr=False)
    #: Where it listens; port 0 takes a free one.
    address: str = "127.0.0.1:50051"
    #: Where `scaidrive://<tenant>/<path>` is. `None` is `<data_dir>/drive`.
    drive_dir: Path | None = None
    #: How long a process that was asked to leave may take to save a checkpoint.
    stop_grace: float = 30.0
    #: Largest request or answer.
    max_message_bytes: int = 16 * 1024 * 1024
    #: How often a client may ping without being told off.
    min_ping_interval: float = 1.0
    #: What this machine is called.
    node_id: str = "local"
    #: Cores of this machine that jobs may take; 0 takes all.
    cpus: int = 0
    #: Nodes that are declared, not there: their GPUs are accounted, their jobs run here.
    virtual_nodes: tuple[NodeSpec, ...] = ()

    @property
    def drive_root(self) -> Path:
        """The local ScaiDrive."""
        return self.drive_dir or self.data_dir / "drive"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "CoordinatorConfig":
        """From `SCAIMIND_COORDINATOR_*`. Raises BadConfig with one line that names the variable.

        DATA_DIR (default `var/coordinator`), API_SECRET (required), ADDRESS,
        DRIVE_DIR, STOP_GRACE, MAX_MESSAGE_BYTES, MIN_PING_INTERVAL, NODE_ID,
        CPUS, and VIRTUAL_NODES as `parse_virtual_nodes` takes it.
        """

        parsers: dict[str, Callable[[str], Any]] = {
            "data_dir": lambda text: Path(text).absolute(),
            "api_secret": str,
            "address": _address,
            "drive_dir": lambda text: Path(text).absolute(),
            "stop_grace": _seconds,
            "max_message_bytes": parse_size,
            "min_ping_interval": _seconds,
            "node_id": _node_id,
            "cpus": _count,
            "virtual_nodes": parse_virtual_nodes,
        }
        given: dict[str, Any] = {"data_dir": Path("var/coordinator").absolute()}
        for name, parse in parsers.items():
            variable = PREFIX + name.upper()
            if text := environ.get(variable, ""):
                try:
                    given[name] = parse(text)
                except ValueError as error:
                    raise BadConfig(f"{variable}: {error}") from None
        if "api_secret" not in given:
            raise BadConfig(f"{PREFIX}API_SECRET: it is not set; the gateway must have the same")
        return cls(**given)


def parse_size(text: str) -> int:
    """Bytes: a number, optionally with K, M, G or T (powers of 1024). Raises ValueError."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a size such as 512MiB")
    return int(match[1]) * _UNITS[match[2]]


def parse_virtual_nodes(text: str) -> tuple[NodeSpec, ...]:
    """Nodes such as `a100-1:8xA100-80GB,big:4xH100-80GB:cpus=64:memory=512GiB:zone=a`.

    Each is `<name>:<count>x<GPU type>`, then any of `cpus=` (default 8 for
    each GPU), `memory=` (default 64 GiB for each GPU) and labels. A GPU type
    that ends in `-<n>GB` tells its memory. Raises ValueError.
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
        raise ValueError(f"{text!r}: {rest!r} is not understood")
    size = _GPU_MEMORY.search(gpu_type)
    return NodeSpec(
        node_id=name,
        hostname=name,
        cpus=_count(settings.pop("cpus", str(8 * count))),
        memory=parse_size(settings.pop("memory", f"{64 * count}GiB")),
        gpus=(GpuSpec(gpu_type, int(size[1]) * _GIB if size else 0),) * count,
        virtual=True,
        labels=settings,
    )


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not of the form <host>:<port>")
    return text


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds over 0")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{text!r} is not a count of 1 or more")
    return int(text)


def _node_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise ValueError(f"{text!r} is not a name of letters, digits, '.', '_' and '-'")
    return text
