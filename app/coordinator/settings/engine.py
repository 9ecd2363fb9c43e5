"""Settings of what carries runs out."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from app.configuration.section import Section, parsed
from app.configuration.values import parse_address, parse_path, parse_seconds
from app.coordinator.settings.values import parse_engine, parse_yes

_NO_PATH: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Section):
    """Engine."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"

    engine: str = parsed(
        "local",
        "`local`: this machine. `ray`: the nodes of a Ray cluster; needs the extra `ray`, the same "
        "versions of Python (minor), Ray and this project on every node, and ray_address.",
        parse_engine,
    )
    ray_address: str = parsed(
        "",
        "Control service of the Ray cluster, host:port.",
        parse_address,
        example="ray-head:6379",
    )
    ray_token_file: Path | None = parsed(
        _NO_PATH,
        "File with the cluster's token (RAY_AUTH_TOKEN_PATH of its processes, with "
        "RAY_AUTH_MODE=token). Without one, anybody who reaches the cluster runs code on it.",
        parse_path,
        example="/etc/scaimind/ray-token",
    )
    ray_node_dir: Path = parsed(
        Path("/var/lib/scaimind/runs"),
        "Directory of each node, on its own disk, where runs record what they write until the "
        "coordinator has taken it over.",
        parse_path,
        example="/var/lib/scaimind/runs",
    )
    ray_shared_disk: bool = parsed(
        False,
        "Whether data_dir and drive_dir are on a disk that every node has at the same path: "
        "inputs, programs, artefacts and checkpoints are there. engine = ray needs this or "
        "drive_url.",
        parse_yes,
        example="yes",
    )
    ray_lost_node_seconds: float = parsed(
        90.0,
        "Time that a lost node has to return before its runs go on elsewhere and what it has "
        "recorded is given up. Longer than a node goes on that is cut off "
        "(RAY_gcs_rpc_server_reconnect_timeout_s, 60 by default).",
        parse_seconds,
    )
    ray_autoscaling: bool = parsed(
        False,
        "Whether an autoscaler adds nodes, as with KubeRay. Jobs are then accepted that no node "
        "can satisfy yet, and the autoscaler is told what waits.",
        parse_yes,
        example="yes",
    )
