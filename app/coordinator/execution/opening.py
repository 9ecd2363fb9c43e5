"""The workspace put together from the settings."""

import os
from collections.abc import Callable

import psutil

from app.coordinator.data.archives.unpacking import Unpacker
from app.coordinator.data.atlas import Atlas
from app.coordinator.data.conversion.conversion import Converter
from app.coordinator.data.drive import Drive
from app.coordinator.execution.artefacts import Artefacts
from app.coordinator.execution.inputs import Inputs
from app.coordinator.execution.models import Models
from app.coordinator.execution.project import Projects
from app.coordinator.execution.workspace import Workspace
from app.coordinator.packages.installing import Installer
from app.coordinator.settings.coordinator import CoordinatorConfig
from app.coordinator.trainers.hub import Hub
from app.files.walking import Limits


def open_workspace(
    config: CoordinatorConfig,
    *,
    drive: Drive,
    inputs: Inputs,
    installer: Installer,
    readable: tuple[str, ...],
    clock: Callable[[], int],
) -> Workspace:
    """Return the workspace; `readable` is what of the system its helper processes may read."""
    exports = Limits(entries=config.export_files, size_bytes=config.export_bytes)
    folders = Limits(entries=config.working_dir_files, size_bytes=config.working_dir_bytes)
    return Workspace(
        jobs=config.data_dir / "jobs",
        drive=drive,
        inputs=inputs,
        models=Models(drive=drive, hub=Hub(os.environ, network=config.job_network == "shared")),
        projects=Projects(
            drive=drive, unpacker=Unpacker(readable=readable, limits=folders), limits=folders
        ),
        installer=installer,
        artefacts=Artefacts(
            drive=drive,
            atlas=Atlas(config.atlas_root),
            converter=Converter(
                readable=readable,
                memory_bytes=config.export_memory or psutil.virtual_memory().total // 2,
                limits=exports,
            ),
            limits=exports,
            clock=clock,
        ),
    )
