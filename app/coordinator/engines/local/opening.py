"""The local engine put together from the settings and from what this machine offers."""

import asyncio
from pathlib import Path

import structlog

from app.coordinator.cluster.node_specs import NodeSpec
from app.coordinator.cluster.this_machine import this_machine
from app.coordinator.engines.local.engine import LocalEngine
from app.coordinator.engines.local.programs import LocalPrograms
from app.coordinator.engines.local.run_limits import RunLimits
from app.coordinator.engines.local.runner_spec import RunnerSpecs
from app.coordinator.engines.local.sandbox_spec import SandboxSpecs
from app.coordinator.isolation.devices import find_gpu_devices
from app.coordinator.isolation.levels import Isolation
from app.coordinator.isolation.probe import NotIsolated, find_isolation
from app.coordinator.isolation.system_paths import landlock_version, missing_protection
from app.coordinator.isolation.uids import JobUids
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig

log = structlog.get_logger("scaimind.coordinator")


async def open_local_engine(
    config: CoordinatorConfig,
    *,
    readable: tuple[str, ...],
    roots: tuple[Path, ...] = (),
    isolation: Isolation | None = None,
) -> LocalEngine:
    """Return the engine of this machine, for the caller to close.

    `readable` is what every process of a run may read; `roots` are further
    directories that jobs' files may be in. Without `isolation`, what the
    machine offers is tried. Raises BadConfig if the
    machine does not offer what the settings demand.
    """
    nodes = _nodes(config)
    isolation = isolation or await find_isolation_for(config, readable)
    notify = config.data_dir / "notify.sock"
    uids = JobUids(config.data_dir / "uids", isolation.uids) if isolation.uids else None
    roots = (config.data_dir, config.drive_root, config.atlas_root, *roots)
    specs = RunnerSpecs(
        limits=RunLimits.of_machine(config, cluster_cores=sum(node.cpus for node in nodes)),
        sandboxes=SandboxSpecs(
            isolation=isolation,
            uids=uids,
            share_network=config.job_network == "shared",
            gpus=find_gpu_devices(),
            roots=roots,
        ),
        node_id=config.node_id,
        notify=notify,
        grace=config.stop_grace,
        readable=readable,
    )
    return LocalEngine(
        jobs=config.data_dir / "jobs",
        nodes=nodes,
        isolation=isolation,
        specs=specs,
        programs=LocalPrograms(
            isolation=isolation, uids=uids, readable=readable, roots=tuple(map(str, roots))
        ),
        notify=notify,
        grace=config.stop_grace,
        term_file=TermFile.of(config.data_dir),
    )


def _nodes(config: CoordinatorConfig) -> tuple[NodeSpec, ...]:
    """Return this machine and the declared nodes. Raises BadConfig."""
    if any(node.node_id == config.node_id for node in config.virtual_nodes):
        raise BadConfig(
            f"{config.variable('virtual_nodes')}: {config.node_id!r} is the name of this machine."
        )
    return (this_machine(node_id=config.node_id, cpus=config.cpus), *config.virtual_nodes)


async def find_isolation_for(config: CoordinatorConfig, readable: tuple[str, ...]) -> Isolation:
    """Return what runs are kept apart by. Raises BadConfig."""
    try:
        isolation = await asyncio.to_thread(
            find_isolation,
            config.isolation,
            uids=config.job_uids.uids,
            data_dir=config.data_dir,
            readable=readable,
            network=config.job_network == "shared",
        )
    except NotIsolated as error:
        raise BadConfig(f"{config.variable('isolation')}: {error}") from None
    refused = {level.value: reason for level, reason in isolation.refused.items()}
    log.info("isolation_chosen", isolation=isolation.describe(), refused=refused)
    gaps = list(isolation.gaps)
    if not isolation.parts_tenants and (problem := missing_protection(landlock_version())):
        gaps.append(problem)
    if gaps:
        log.warning("jobs_not_confined", reason="; ".join(gaps))
    return isolation
