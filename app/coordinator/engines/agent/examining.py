"""What an agent finds out about its node before the first run."""

import platform
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from app import __version__
from app.coordinator.cluster.gpus import Nvml
from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.agent.protocol import PROTOCOL, VERSION_NAME
from app.coordinator.isolation.probe import NotIsolated, find_isolation
from app.coordinator.isolation.system_paths import system_paths
from app.coordinator.settings.runs import RunSettings
from app.objects.opening import open_object_store
from app.objects.store import DriveUnavailable


def versions(**engine: str) -> dict[str, str]:
    """Return what must be the same on every node: the minor of Python, the version of this
    project, the protocol of its agents, and the versions of the engine."""
    major, minor, _ = platform.python_version_tuple()
    own = {"scaimind-gateway": __version__, VERSION_NAME: str(PROTOCOL)}
    return {"Python": f"{major}.{minor}", **own, **engine}


def difference(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Return how versions differ, as a phrase; empty if they do not."""
    return ", ".join(
        f"{name} {there.get(name, 'unknown')} there and {version} here"
        for name, version in here.items()
        if there.get(name) != version
    )


@dataclass(frozen=True, slots=True)
class NodeExamination:
    """What was found."""

    hostname: str
    versions: Mapping[str, str]
    #: Type and bytes of each; empty where the machine tells nothing of its GPUs.
    gpus: tuple[tuple[str, int], ...] = ()
    #: As `NodeSettings.found` has it.
    isolation: Mapping[str, Any] | None = None
    #: Why no run can be carried out there, as a sentence; empty if it can.
    problem: str = ""

    def encoded(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps(asdict(self), default=str)

    @classmethod
    def decoded(cls, data: bytes) -> Self:
        """Read what `encoded` returned."""
        value = orjson.loads(data)
        value["gpus"] = tuple((each[0], each[1]) for each in value["gpus"])
        return cls(**value)


def examine_node(settings: NodeSettings, **engine: str) -> NodeExamination:
    """Find out what this node is and whether runs can be isolated there as they must.

    `engine` has the versions of what the engine runs by. Blocks for a fraction
    of a second.
    """
    found = NodeExamination(hostname=socket.gethostname(), versions=versions(**engine))
    nvml = Nvml.open()
    gpus = tuple((each.type, each.memory) for each in nvml.specs()) if nvml is not None else ()
    directory = settings.records
    needed = () if settings.files else (*settings.shared, settings.drive_dir)
    missing = [path for path in needed if not path.is_dir()]
    if missing:
        names = ", ".join(map(str, missing))
        return _with(found, gpus, problem=f"It does not have the shared directory {names}.")
    try:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        isolation = find_isolation(
            settings.isolation,
            uids=RunSettings().job_uids.uids,
            data_dir=directory,
            readable=_readable(settings, directory),
            network=settings.job_network == "shared",
        )
    except NotIsolated as error:
        return _with(found, gpus, problem=f"Runs cannot be isolated there: {error}.")
    except OSError as error:
        reason = f"{directory} cannot be used: {error.strerror}"
        return _with(found, gpus, problem=f"Its directory {reason}.")
    if settings.files and (problem := _drive_problem(settings)):
        return _with(found, gpus, problem=problem)
    about = {"level": isolation.level, "bwrap": isolation.bwrap, "filter": isolation.filter}
    return _with(found, gpus, isolation=about)


def _drive_problem(settings: NodeSettings) -> str:
    """Return why the node cannot use the drive, as a sentence; empty if it can, or may later."""
    config = settings.config(settings.directory, uid=None)
    try:
        store = open_object_store(
            config.drive_url,
            endpoint=config.drive_endpoint,
            credentials=config.drive_credentials_file,
        )
        try:
            store.check()
        finally:
            store.close()
    except DriveUnavailable:
        # Its runs wait until it can be reached.
        return ""
    except OSError as error:
        return f"It cannot use the drive: {error.strerror}."
    return ""


def _with(
    found: NodeExamination,
    gpus: tuple[tuple[str, int], ...],
    *,
    isolation: Mapping[str, Any] | None = None,
    problem: str = "",
) -> NodeExamination:
    return NodeExamination(found.hostname, found.versions, gpus, isolation, problem)


def _readable(settings: NodeSettings, directory: Path) -> tuple[str, ...]:
    private = [directory, *settings.shared, settings.drive_dir, settings.atlas_dir]
    return system_paths(private)
