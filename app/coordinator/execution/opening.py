"""The workspace put together from the settings."""

import os
from collections.abc import Callable
from contextlib import suppress

import psutil

from app.coordinator.data.archives.unpacking import Unpacker
from app.coordinator.data.atlas import Atlas
from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.data.conversion.conversion import Converter
from app.coordinator.data.drive import Drive
from app.coordinator.execution.artefacts import Artefacts
from app.coordinator.execution.bucket.artefacts import BucketArtefacts
from app.coordinator.execution.bucket.led_store import LedStore
from app.coordinator.execution.bucket.run_specs import BucketRunSpecs
from app.coordinator.execution.bucket.workspace import BucketWorkspace
from app.coordinator.execution.inputs import Inputs
from app.coordinator.execution.models import Models
from app.coordinator.execution.project import Projects
from app.coordinator.execution.run_spec import RunSpecs
from app.coordinator.execution.workspace import Workspace
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.packages.installing import Installer
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig
from app.coordinator.trainers.asking import Trainers
from app.coordinator.trainers.hub import Hub
from app.files.walking import Limits
from app.objects.opening import open_object_store
from app.objects.store import DriveUnavailable


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
    converter = Converter(
        readable=readable,
        memory_bytes=config.export_memory or psutil.virtual_memory().total // 2,
        limits=exports,
    )
    models = Models(drive=drive, hub=Hub(os.environ, network=config.job_network == "shared"))
    projects = Projects(
        drive=drive, unpacker=Unpacker(readable=readable, limits=folders), limits=folders
    )
    if isinstance(drive, BucketDrive):
        return BucketWorkspace(
            jobs=config.data_dir / "jobs",
            bucket=drive,
            limits=checkpoint_limits(config),
            inputs=inputs,
            models=models,
            projects=projects,
            installer=installer,
            artefacts=BucketArtefacts(
                bucket=drive, converter=converter, limits=exports, clock=clock
            ),
        )
    return Workspace(
        jobs=config.data_dir / "jobs",
        drive=drive,
        inputs=inputs,
        models=models,
        projects=projects,
        installer=installer,
        artefacts=Artefacts(
            drive=drive,
            atlas=Atlas(config.atlas_root),
            converter=converter,
            limits=exports,
            clock=clock,
        ),
    )


def checkpoint_limits(config: CoordinatorConfig) -> Limits:
    """Return what a checkpoint, and the output of a run, may be at most in an object store."""
    return Limits(entries=config.job_files, size_bytes=config.job_checkpoint_bytes or 1 << 62)


def open_run_specs(
    *,
    workspace: Workspace,
    secrets: JobSecrets,
    drive: Drive,
    trainers: Trainers,
    leadership: Leadership,
) -> RunSpecs:
    """Return what makes the specifications of runs."""
    kind = BucketRunSpecs if isinstance(drive, BucketDrive) else RunSpecs
    return kind(
        workspace=workspace,
        secrets=secrets,
        drive=drive,
        trainers=trainers,
        leadership=leadership,
    )


def open_drive(config: CoordinatorConfig, *, leadership: Leadership) -> Drive:
    """Return the drive that the settings name. A store is changed only while `leadership` lasts.

    Raises BadConfig if it is a store that does not let this deployment in; one that does not
    answer may do so later. Blocks.
    """
    if not config.drive_url:
        return Drive(config.drive_root, atlas=config.atlas_root, allowed=config.allowed_paths)
    if config.engine == "local":
        raise BadConfig(
            f"{config.variable('drive_url')}: it is for nodes that share no disk (engine = ray)."
            " One machine has its drive in drive_dir."
        )
    try:
        store = open_object_store(
            config.drive_url,
            endpoint=config.drive_endpoint,
            credentials=config.drive_credentials_file,
        )
        with suppress(DriveUnavailable):
            store.check()
    except OSError as error:
        raise BadConfig(f"{config.variable('drive_url')}: {error.strerror}") from None
    led = LedStore(store, leadership)
    return BucketDrive(config.drive_root, store=led, allowed=config.allowed_paths)
