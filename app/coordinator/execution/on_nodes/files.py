"""A part's files on its node: as on one machine, between a drive that is fetched and one that
is brought away."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
from typing_extensions import override

from app.coordinator.data.bucket_drive import OUTPUT, BucketDrive
from app.coordinator.data.drive import BadUrl
from app.coordinator.engines.agent.part_files import PartFiles
from app.coordinator.engines.agent.run_part import RunPart
from app.coordinator.engines.engine import CannotLaunch, RunSpec
from app.coordinator.execution.checkpoints import CheckpointFinder
from app.coordinator.execution.on_nodes.view import DriveView
from app.coordinator.execution.preparation import Unprepared
from app.coordinator.execution.run_spec import RunSpecs
from app.coordinator.execution.workspace import Workspace
from app.coordinator.jobs.model import Checkpoint, JobRecord
from app.coordinator.logs.lines import Line
from app.coordinator.logs.log import LogWriter
from app.coordinator.packages.build_log import Say
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.locks import locked
from app.files.directory import Directory, LimitReached, NotARegularFile
from app.files.json_files import read_json, write_json
from app.files.removing import remove_tree
from app.files.walking import ChangedMeanwhile, Limits
from app.objects.store import ObjectStore
from generated.mindcoordinator.v1.watch_pb2 import LogEntry

#: Which checkpoints are away, in the run's directory.
_AWAY: Final = "away.json"

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
        """`directory` is the run's, and `limits` those of a checkpoint and of the output."""
        self._directory = directory
        self._node_id = node_id
        self._store = store
        self._bucket = bucket
        self._view = view
        self._workspace = workspace
        self._run_specs = run_specs
        self._limits = limits
        self._clock = clock
        self._finder: CheckpointFinder | None = None
        self._known: tuple[Checkpoint, ...] = ()

    @override
    def prepare(self, part: RunPart, abandoned: threading.Event) -> RunSpec:
        job = part.job
        try:
            self._view.fill(job, abandoned)
            self._fetch_output(job, abandoned)
            self._workspace.prepare(job, self._say(job), abandoned)
            self._note_away(job)
            spec = self._run_specs.of(job)
        except (BadUrl, LimitReached, Unprepared) as error:
            raise CannotLaunch(_phrase(error)) from None
        # Where and for whom is the coordinator's to say, and said once in the job's log.
        return replace(spec, announcement="", warnings=(), files=None, ranks=part.run.ranks)

    @override
    def publish(self, part: RunPart, abandoned: threading.Event) -> None:
        if _is_first(part):
            self._publish(part.job, abandoned, last=False)

    @override
    def publish_last(self, part: RunPart, abandoned: threading.Event) -> None:
        if not _is_first(part):
            return
        job = part.job
        self._publish(job, abandoned, last=True)
        directory = self._workspace.directory(job.job_id)
        try:
            with Directory.open(directory.path) as own:
                self._bucket.kept(job.tenant_id, job.job_id).publish(
                    own, OUTPUT, abandoned, limits=self._limits
                )
        except (LimitReached, ChangedMeanwhile) as error:
            raise CannotLaunch(f"its output is not taken: {error.strerror}") from None

    @override
    def close(self) -> None:
        self._store.close()

    def _publish(self, job: JobRecord, abandoned: threading.Event, *, last: bool) -> None:
        """Bring away what is new among the checkpoints, the oldest first. Raises Abandoned,
        OSError."""
        if self._finder is None:
            keep = job.submission.output_config.max_checkpoints
            self._finder = CheckpointFinder(keep=keep, clock=self._clock)
        self._known = self._workspace.checkpoints(
            replace(job, checkpoints=self._known), self._finder, last=last
        )
        self._tell(job, self._finder)
        away = read_json(self._directory / _AWAY) or {}
        trees = self._bucket.checkpoints(job.tenant_id, job.job_id)
        for checkpoint in self._known:
            name, content = checkpoint.checkpoint_id, _content(checkpoint)
            if away.get(name) == content:
                continue
            try:
                with self._workspace.open_checkpoints(job) as source:
                    trees.publish(source, name, abandoned, limits=self._limits)
            except (FileNotFoundError, NotADirectoryError, NotARegularFile, ChangedMeanwhile):
                # The job has removed it, or writes it anew: the next look finds what is there.
                continue
            except LimitReached as error:
                self._finder.notes.append(
                    f"The checkpoint {name} is not brought away: {error.strerror}."
                )
            away[name] = content
            write_json(self._directory / _AWAY, away)
        if self._finder.leftovers:
            self._workspace.remove_leftovers(job)

    def _note_away(self, job: JobRecord) -> None:
        """Note that the checkpoint that the run goes on from need not be brought away again."""
        finder = CheckpointFinder(keep=0, clock=self._clock)
        self._known = self._workspace.checkpoints(replace(job, checkpoints=()), finder)
        away = {each.checkpoint_id: _content(each) for each in self._known}
        write_json(self._directory / _AWAY, away)

    def _fetch_output(self, job: JobRecord, abandoned: threading.Event) -> None:
        """Have what former runs of the job have left as their output."""
        path = self._workspace.directory(job.job_id).path
        with Directory.open(path) as own:
            remove_tree(own, OUTPUT)
            # There is none of a job that has not run.
            with suppress(FileNotFoundError):
                kept = self._bucket.kept(job.tenant_id, job.job_id)
                kept.fetch(OUTPUT, own, OUTPUT, abandoned)

    def _tell(self, job: JobRecord, finder: CheckpointFinder) -> None:
        """Log what a look has found: the job's log is the runner's meanwhile."""
        for note in finder.notes:
            log.warning("checkpoints_noted", job_id=job.job_id, reason=note)
        finder.notes.clear()

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


def _is_first(part: RunPart) -> bool:
    """Whether rank 0 is there, whose files are those of the run."""
    return part.run.ranks[0].environment.get("RANK", "0") == "0"


def _content(checkpoint: Checkpoint) -> str:
    """Return what tells a checkpoint's content apart, whoever owns its files."""
    return ":".join(checkpoint.identity.split(":")[:2])


def _phrase(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return str(text).rstrip(".")
