"""The engine of a Ray cluster put together from the settings."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import structlog

from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.local.opening import open_local_engine
from app.coordinator.engines.local.runner.recording import RecordBounds
from app.coordinator.engines.ray.driver_settings import DriverSettings
from app.coordinator.engines.remote.driver_client import DriverClient
from app.coordinator.engines.remote.driver_process import DriverProcess, DriverRefused
from app.coordinator.engines.remote.engine import RemoteEngine
from app.coordinator.isolation.uids import JobUids
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig

_DRIVER: Final = "app.coordinator.driver"
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[4]

log = structlog.get_logger("scaimind.coordinator")


async def open_ray_engine(
    config: CoordinatorConfig, *, readable: tuple[str, ...], leadership: Leadership
) -> RemoteEngine:
    """Return the engine of a Ray cluster, for the caller to close.

    Raises BadConfig if the settings or the cluster do not allow it.
    """
    _check(config)
    local = await open_local_engine(config, readable=readable)
    # The paths of Unix sockets are short.
    scratch = Path(tempfile.mkdtemp(prefix="scaimind-"))
    remove = partial(shutil.rmtree, scratch, ignore_errors=True)
    socket = str(scratch / "driver.sock")
    nodes = NodeSettings.of(
        config, directory=config.ray_node_dir, isolation=local.isolation.level.value
    )
    driver = DriverProcess(
        _DRIVER,
        settings=DriverSettings(socket, config.ray_address, nodes).encoded(),
        environment=_environment(config),
        errors=config.data_dir / "driver.err",
    )
    client = DriverClient(socket)
    uids = local.isolation.uids
    engine = RemoteEngine(
        local=local,
        jobs=config.data_dir / "jobs",
        uids=JobUids(config.data_dir / "uids", uids) if uids else None,
        driver=driver,
        client=client,
        leadership=leadership,
        lost_node_patience=config.ray_lost_node_seconds,
        bounds=RecordBounds(log=config.job_log_bytes, metrics=config.job_metrics_bytes),
        sends_secrets=bool(config.drive_url),
        scratch=remove,
    )
    try:
        await driver.start()
        await engine.open()
    except DriverRefused as error:
        await engine.close()
        raise BadConfig(f"{config.variable('ray_address')}: {error}") from None
    except BaseException:
        await engine.close()
        raise
    return engine


def _check(config: CoordinatorConfig) -> None:
    """Raise BadConfig for settings that do not go together."""
    problems = []
    if not config.ray_address:
        problems.append(f"{config.variable('ray_address')}: engine = ray needs it.")
    if not config.ray_shared_disk and not config.drive_url:
        problems.append(
            f"{config.variable('ray_shared_disk')}: engine = ray needs data_dir and drive_dir on a"
            " disk that every node has at the same path. Set it to yes once they are, or name an"
            f" object store by {config.variable('drive_url')}."
        )
    if config.ray_shared_disk and config.drive_url:
        problems.append(
            f"{config.variable('drive_url')}: the drive is either there or on the disk that nodes"
            " share (ray_shared_disk). Set one of them."
        )
    if config.virtual_nodes:
        problems.append(
            f"{config.variable('virtual_nodes')}: engine = ray has the nodes of its cluster."
        )
    if find_spec("ray") is None:
        problems.append(
            f"{config.variable('engine')}: Ray is not installed here. Install the extra `ray`"
            " (requirements/ray.txt)."
        )
    if problems:
        raise BadConfig(*problems)


def _environment(config: CoordinatorConfig) -> Mapping[str, str]:
    """Return the driver's environment: nothing of this process's, which has the API secret."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(_PACKAGE_ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's own default wants the same patch level, which distributions change.
        "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
        "RAY_AUTH_MODE": "disabled",
        # A driver prints what it is told of, and nobody reads that.
        "RAY_DEDUP_LOGS": "0",
    }
    if config.ray_token_file is not None:
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(config.ray_token_file),
        }
    return environment
