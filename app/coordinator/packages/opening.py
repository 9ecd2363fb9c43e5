"""The installer put together from the settings, and what it refuses at a submission."""

from collections.abc import Callable, Collection

import psutil

from app.coordinator.engines.programs import Programs
from app.coordinator.packages.environments import Environments
from app.coordinator.packages.installing import NO_UV, Installer, InstallLimits
from app.coordinator.packages.uv import PackageSource, find_uv
from app.coordinator.settings.coordinator import CoordinatorConfig
from app.coordinator.submission.program import PackageRules


def open_installer(
    config: CoordinatorConfig,
    *,
    programs: Programs,
    running: Collection[str],
    clock: Callable[[], int],
) -> Installer:
    """Return the installer; `running` are the jobs that may use environments. Blocks shortly.

    Raises OSError.
    """
    environments = Environments(config.data_dir / "environments", limit_bytes=config.packages_bytes)
    environments.open(running=running)
    return Installer(
        programs=programs,
        environments=environments,
        source=PackageSource(index=config.packages_index, wheels=config.packages_wheels),
        limits=InstallLimits(
            timeout=config.packages_timeout,
            size_bytes=config.environment_bytes,
            files=config.environment_files,
            memory_bytes=psutil.virtual_memory().total // 2,
        ),
        clock=clock,
    )


def package_rules(config: CoordinatorConfig) -> PackageRules:
    """Return what submissions may ask for here."""
    builds = ""
    if config.job_network == "none" and config.packages_wheels is None:
        builds = (
            "a package that is built runs its own code with the network, and jobs have none here"
            " (setting job_network)"
        )
    return PackageRules(no_packages="" if find_uv() else NO_UV, no_builds=builds)
