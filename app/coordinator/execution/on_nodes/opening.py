"""A part's files on a node, put together from what the coordinator says of its settings."""

import time
from pathlib import Path

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.data.drive import Drive
from app.coordinator.engines.agent.agent import SECRETS
from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.programs import Programs
from app.coordinator.execution.inputs import Inputs
from app.coordinator.execution.on_nodes.files import NodeFiles
from app.coordinator.execution.on_nodes.object_cache import ObjectCache
from app.coordinator.execution.on_nodes.view import DriveView
from app.coordinator.execution.opening import checkpoint_limits, open_workspace
from app.coordinator.execution.run_spec import RunSpecs
from app.coordinator.isolation.system_paths import system_paths
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.leadership.leadership import SoleLeadership
from app.coordinator.packages.opening import open_installer
from app.coordinator.trainers.asking import Trainers
from app.objects.opening import open_object_store


def open_node_files(settings: NodeSettings, directory: Path, programs: Programs) -> NodeFiles:
    """Return the files of a part whose records are in `directory`, for the caller to close.

    Connects to nothing yet. Raises OSError.
    """
    config = settings.config(directory, uid=None)
    store = open_object_store(
        config.drive_url, endpoint=config.drive_endpoint, credentials=config.drive_credentials_file
    )
    allowed = config.allowed_paths
    bucket = BucketDrive(config.drive_root, store=store, allowed=allowed)
    local = Drive(config.drive_root, atlas=config.atlas_root, allowed=allowed)
    readable = system_paths([directory, config.drive_root, config.atlas_root])
    workspace = open_workspace(
        config,
        drive=local,
        inputs=Inputs(drive=local, cache=None, clock=now),
        installer=open_installer(config, programs=programs, running=(), clock=now),
        readable=readable,
        clock=now,
    )
    # On the disk of the runs' directories: they have names of the same files.
    place = settings.directory / settings.owner / ".cache"
    cache = ObjectCache(place, store, limit_bytes=config.cache_bytes)
    return NodeFiles(
        directory=directory,
        node_id=settings.node_id,
        store=store,
        bucket=bucket,
        view=DriveView(bucket=bucket, cache=cache, local=local),
        workspace=workspace,
        run_specs=RunSpecs(
            workspace=workspace,
            secrets=JobSecrets(directory / SECRETS),
            drive=local,
            trainers=Trainers(config.trainers_python, readable=readable, private=(directory,)),
            leadership=SoleLeadership(0),
        ),
        limits=checkpoint_limits(config),
        clock=now,
    )


def now() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000
