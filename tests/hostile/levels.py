"""The levels of isolation at which this host can run jobs."""

import tempfile
from functools import cache
from pathlib import Path

from app.coordinator.isolation.levels import Level
from app.coordinator.isolation.probe import NotIsolated, find_isolation
from app.coordinator.isolation.system_paths import system_paths
from app.coordinator.settings.coordinator import CoordinatorConfig
from tests.coordinator.harness import config_for


@cache
def offered() -> tuple[str, ...]:
    """Those that work, the strongest first: each is tried as a coordinator tries it."""
    with tempfile.TemporaryDirectory(prefix="scaimind-") as folder:
        config = config_for(Path(folder))
        return tuple(level.value for level in Level if _works(level, config))


def _works(level: Level, config: CoordinatorConfig) -> bool:
    try:
        found = find_isolation(
            level.value,
            uids=config.job_uids.uids,
            data_dir=config.data_dir,
            readable=system_paths([config.data_dir]),
            network=True,
        )
    except NotIsolated:
        return False
    # A stronger one may stand in for it.
    return found.level is level
