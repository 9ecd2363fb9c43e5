"""What an agent is told of its node and of how runs are carried out there."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import orjson

from app.coordinator.isolation.levels import Isolation, Level, UidRange
from app.coordinator.settings.coordinator import CoordinatorConfig

#: The settings of `NodeSettings.files`, those that are paths, and those that are several.
_FILES: Final = (
    *("drive_url", "drive_endpoint", "cache_bytes", "working_dir_bytes", "working_dir_files"),
    *("packages_index", "packages_bytes", "packages_timeout"),
    *("environment_bytes", "environment_files"),
)
_PATHS: Final = ("drive_credentials_file", "trainers_python", "packages_wheels")
_PATH_LISTS: Final = ("allowed_paths",)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """The same for all runs on all nodes, but for what the node is and has."""

    node_id: str
    #: Cores of the node.
    cpus: int
    #: The node's own directory for the records of runs.
    directory: Path
    #: Whose runs they are: the same for all coordinators with the same data directory.
    owner: str
    #: Directories that every node has at the same path, and that jobs must not see as a whole.
    shared: tuple[Path, ...]
    drive_dir: Path
    atlas_dir: Path
    #: The level that the node must have, or a stronger one.
    isolation: str
    #: What was found there; None before it was examined.
    found: Mapping[str, Any] | None = None
    job_network: str
    stop_grace: float
    job_processes: int
    job_open_files: int
    job_disk_bytes: int
    job_files: int
    job_checkpoint_bytes: int
    job_log_bytes: int
    job_metrics_bytes: int
    #: The settings of what is done with files on a node that shares no disk, by their names; none
    #: where the nodes share one.
    files: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: CoordinatorConfig, *, directory: Path, isolation: str) -> Self:
        """Return those of the coordinator's settings, for no node yet."""
        return cls(
            node_id="",
            cpus=0,
            directory=directory,
            owner=sha256(os.fsencode(config.data_dir.absolute())).hexdigest()[:12],
            shared=() if config.drive_url else (config.data_dir,),
            drive_dir=config.drive_root,
            atlas_dir=config.atlas_root,
            isolation=isolation,
            job_network=config.job_network,
            stop_grace=config.stop_grace,
            job_processes=config.job_processes,
            job_open_files=config.job_open_files,
            job_disk_bytes=config.job_disk_bytes,
            job_files=config.job_files,
            job_checkpoint_bytes=config.job_checkpoint_bytes,
            job_log_bytes=config.job_log_bytes,
            job_metrics_bytes=config.job_metrics_bytes,
            files=_files_of(config) if config.drive_url else {},
        )

    @property
    def records(self) -> Path:
        """Where the node keeps what it has of runs. Other coordinators use the node, too."""
        return self.directory / self.owner / self.node_id

    def encoded(self) -> bytes:
        """Return them as JSON."""
        return orjson.dumps(asdict(self), default=str)

    @classmethod
    def decoded(cls, data: bytes) -> Self:
        """Read what `encoded` returned."""
        value = orjson.loads(data)
        for name in ("directory", "drive_dir", "atlas_dir"):
            value[name] = Path(value[name])
        value["shared"] = tuple(map(Path, value["shared"]))
        return cls(**value)

    def with_node(self, node_id: str, *, cpus: int, found: Mapping[str, Any] | None = None) -> Self:
        """Return those of a node, with what it was found to isolate runs by."""
        return replace(self, node_id=node_id, cpus=cpus, found=found)

    def isolation_for(self, uid: int | None) -> Isolation | None:
        """Return what was found, for a run with this user id."""
        if self.found is None:
            return None
        return Isolation(
            level=Level(self.found["level"]),
            bwrap=self.found["bwrap"],
            uids=range(0) if uid is None else range(uid, uid + 1),
            filter=self.found["filter"],
        )

    def config(self, data_dir: Path, *, uid: int | None) -> CoordinatorConfig:
        """Return the settings of an engine for one run, which keeps its records in `data_dir`.

        `uid` is the run's user id, if it has one of its own.
        """
        config = CoordinatorConfig(
            # No call is accepted here.
            api_secret="",
            data_dir=data_dir,
            # A node that shares no disk has a drive of each run's own.
            drive_dir=None if self.files else self.drive_dir,
            atlas_dir=None if self.files else self.atlas_dir,
            node_id=self.node_id,
            cpus=self.cpus,
            isolation=self.isolation,
            job_network=self.job_network,
            stop_grace=self.stop_grace,
            job_processes=self.job_processes,
            job_open_files=self.job_open_files,
            job_disk_bytes=self.job_disk_bytes,
            job_files=self.job_files,
            job_checkpoint_bytes=self.job_checkpoint_bytes,
            job_log_bytes=self.job_log_bytes,
            job_metrics_bytes=self.job_metrics_bytes,
        )
        config = replace(config, **_parsed(self.files))
        return config if uid is None else replace(config, job_uids=UidRange(uid, uid))


def _files_of(config: CoordinatorConfig) -> Mapping[str, Any]:
    names = (*_FILES, *_PATHS, *_PATH_LISTS)
    found = {name: getattr(config, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _parsed(files: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as a coordinator has them, from JSON or not."""
    found = dict(files)
    for name in _PATHS:
        if name in found:
            found[name] = Path(found[name])
    for name in _PATH_LISTS:
        if name in found:
            found[name] = tuple(map(Path, found[name]))
    return found
