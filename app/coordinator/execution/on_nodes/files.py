"""A part's files on its node: as on one machine, between a drive that is fetched and one that
is brought away."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog
from typing_extensions import override

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.data.drive import BadUrl
from app.coordinator.engines.agent.part_files import PartFiles
from app.coordinator.engines.agent.run_part import RunPart
from app.coordinator.engines.engine import CannotLaunch, RunSpec
from app.coordinator.execution.on_nodes.checkpoints import NodeCheckpoints
from app.coordinator.execution.on_nodes.output import NodeOutput
from app.coordinator.execution.on_nodes.view import DriveView
from app.coordinator.execution.preparation import Unprepared
from app.coordinator.execution.run_spec import SHARED_DISK, RunSpecs
from app.coordinator.execution.workspace import Workspace
from app.coordinator.jobs.model import JobRecord
from app.coordinator.logs.lines import Line
from app.coordinator.logs.log import LogWriter
from app.coordinator.packages.build_log import Say
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.locks import locked
from app.files.directory import LimitReached
from app.files.walking import Limits
from app.objects.store import ObjectStore
from generated.mindcoordinator.v1.watch_pb2 import LogEntry

log = structlog.get_logger("scaimind.coordinator")


class NodeFiles(PartFiles):
    """Made by `opening.open_node_files`."""

    def __init__(
        self,
        *,
        directory: Path,
        node_id: str,
        store: ObjectStore,
        bucket: BucketDrive,
        view: DriveView,
        workspace: Workspace,
        run_specs: RunSpecs,
        limits: Limits,
        clock: Callable[[], int],
    ) -> None:
        """`directory` is the run's, and `limits` those of a checkpoint and of the output here."""
        self._node_id = node_id
        self._store = store
        self._view = view
        self._workspace = workspace
        self._run_specs = run_specs
        self._clock = clock
        self._checkpoints = NodeCheckpoints(
            directory=directory, bucket=bucket, workspace=workspace, limits=limits, clock=clock
        )
        self._output = NodeOutput(directory=directory, bucket=bucket, limits=limits)

    @override
    def prepare(self, part: RunPart, abandoned: threading.Event) -> RunSpec:
        job = part.job
        try:
            self._view.fill(job, abandoned)
            self._output.fetch(job, self._workspace.directory(job.job_id).path, abandoned)
            self._workspace.prepare(job, self._say(job), abandoned)
            self._checkpoints.note_present(job)
            spec = self._run_specs.of(job)
        except (BadUrl, LimitReached, Unprepared) as error:
            raise CannotLaunch(_phrase(error)) from None
        # Where and for whom is the coordinator's to say, and said once in the job's log.
        return replace(
            spec,
            announcement="",
            warnings=(),
            files=None,
            ranks=part.run.ranks,
            variables={**spec.variables, SHARED_DISK: "0" if part.count > 1 else "1"},
        )

    @override
    def publish(self, part: RunPart, abandoned: threading.Event) -> None:
        self._checkpoints.publish(part, abandoned, last=False)

    @override
    def publish_last(self, part: RunPart, abandoned: threading.Event) -> None:
        self._checkpoints.publish(part, abandoned, last=True)
        path = self._workspace.directory(part.job.job_id).path
        self._output.publish(part, path, abandoned)

    @override
    def close(self) -> None:
        self._store.close()

    def _say(self, job: JobRecord) -> Say:
        directory = self._workspace.directory(job.job_id)

        def say(line: Line, *, source: str = "coordinator") -> None:
            entry = LogEntry(
                level=line.level,
                message=line.message,
                source=source,
                node_id=self._node_id,
                fields=line.fields,
            )
            entry.timestamp.FromMicroseconds(self._clock())
            _append(directory, entry)

        return say


def _append(directory: JobDir, entry: LogEntry) -> None:
    with locked(directory.lock, wait=True):
        writer = LogWriter(directory.log)
        try:
            writer.append([entry])
        finally:
            writer.close()


def _phrase(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return str(text).rstrip(".")
