"""What a run needs before it starts: its directory, scripts, data and environment."""

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from app.coordinator.data.conversion.errors import CannotConvert
from app.coordinator.data.drive import CHECKPOINTS, BadUrl, Drive
from app.coordinator.evaluations.process import EVALUATOR, SCRIPT, process_config
from app.coordinator.execution.artefacts import Artefacts, Exported
from app.coordinator.execution.checkpoints import CheckpointFinder, remove_leftovers
from app.coordinator.execution.inputs import Inputs, access_of
from app.coordinator.execution.job_config import _training_config
from app.coordinator.jobs.model import Checkpoint, JobRecord
from app.coordinator.jobs.model import Kind as JobKind
from app.coordinator.logs import log as logs
from app.coordinator.metrics.snapshots import MetricsWriter
from app.coordinator.storage import job_directory_steps as jobdir_steps
from app.coordinator.storage.job_directory import PROGRAM, JobDir
from app.files.copying import copy_content
from app.files.directory import Directory, LimitReached
from app.files.json_files import write_json
from app.files.removing import remove_tree

_MAX_SCRIPT: Final = 64 * 1024 * 1024


class Unprepared(Exception):
    """Something that the job needs cannot be had; the message is for the caller."""


class Workspace:
    """Sets up jobs' directories and brings their artefacts away. Blocks: call it in a thread."""

    def __init__(self, *, jobs: Path, drive: Drive, inputs: Inputs, artefacts: Artefacts) -> None:
        self._jobs = jobs
        self._drive = drive
        self._inputs = inputs
        self._artefacts = artefacts

    def directory(self, job_id: str) -> JobDir:
        """The directory of a job."""
        return JobDir(self._jobs / job_id)

    def create(self, job_id: str) -> None:
        """Make the directory of a new job, with an empty log."""
        directory = self.directory(job_id)
        directory.path.mkdir(parents=True, exist_ok=True)
        directory.lock.touch()
        logs.create(directory.log)
        MetricsWriter(directory.metrics).close()
        jobdir_steps.mark_new(directory)

    def clear_temporary(self, job: JobRecord) -> None:
        """Remove what a run left in its TMPDIR."""
        directory = self.directory(job.job_id)
        # What cannot be removed now is removed before the next run, or with the job.
        with suppress(OSError), Directory.open(directory.path) as own:
            remove_tree(own, directory.temporary.name)

    def checkpoints_path(self, job: JobRecord) -> Path:
        """SCAIMIND_CHECKPOINT_DIR; made if it is not there. Raises BadUrl, OSError.

        No job can put anything else in its place.
        """
        with self.open_checkpoints(job) as directory:
            return directory.path()

    def open_checkpoints(self, job: JobRecord) -> Directory:
        """Open SCAIMIND_CHECKPOINT_DIR; made if it is not there. Raises BadUrl, OSError."""
        url = self._drive.url(job.tenant_id, f"jobs/{job.job_id}/{CHECKPOINTS}")
        directory, name = self._drive.destination(access_of(job), url).open_destination()
        if not name:
            return directory
        with directory:
            return directory.make_directory(name, exist_ok=True)

    def prepare(self, job: JobRecord, abandoned: threading.Event) -> None:
        """Fetch what the job names and write its configuration. Raises Unprepared, Abandoned,
        OSError."""
        directory = self.directory(job.job_id)
        self.clear_temporary(job)
        self.release(job.job_id)
        if job.artefacts_of:
            self._require_artefacts(job)
            return

        def fetch(url: str) -> str:
            return str(self._inputs.fetch(job, url, abandoned))

        try:
            access = access_of(job)
            with Directory.open(directory.path) as own:
                for path in (directory.work, directory.output, directory.temporary):
                    _make_plain(own, path.name)
                self.open_checkpoints(job).close()
                if job.kind is JobKind.EVALUATION:
                    with open(SCRIPT, "rb") as script:
                        _place_script(own, script, self.script_name(job), abandoned)
                    _place_evaluator(own, abandoned)
                    config = process_config(job, fetch)
                else:
                    given = job.submission.training_config.framework.custom_script_path
                    with self._drive.filesystem(access).open(given) as script:
                        _place_script(own, script, self.script_name(job), abandoned)
                    config = _training_config(job, fetch)
            if job.resume_from:
                self._drive.find(access, job.resume_from)
        except (BadUrl, LimitReached) as error:
            raise Unprepared(str(error)) from None
        config["job_id"] = job.job_id
        write_json(directory.config, config)

    def output(self, job: JobRecord) -> Path:
        """Where the job's artefacts are, or those of the job that it only exports."""
        return self.directory(job.artefacts_of or job.job_id).output

    def _require_artefacts(self, job: JobRecord) -> None:
        try:
            Directory.open(self.output(job)).close()
        except (FileNotFoundError, NotADirectoryError):
            raise Unprepared(
                f"The artefacts of {job.artefacts_of} are not there any more. Retry it with the"
                " checkpoint_id of one of its checkpoints, or submit it anew."
            ) from None

    def script_name(self, job: JobRecord) -> str:
        """The name of the job's script."""
        if job.kind is JobKind.EVALUATION:
            return SCRIPT.name
        return job.submission.training_config.framework.custom_script_path.rsplit("/", 1)[-1]

    def script(self, job: JobRecord) -> Path:
        """The job's copy of its script, which it cannot write.

        A job that was prepared by a coordinator before the directory's format
        2, and never started, has it among its own files.
        """
        directory = self.directory(job.job_id)
        script = directory.program / self.script_name(job)
        return script if script.is_file() else directory.work / script.name

    def checkpoints(
        self, job: JobRecord, finder: CheckpointFinder, *, last: bool = False
    ) -> tuple[Checkpoint, ...]:
        """The complete checkpoints of a job, the oldest first; those over `max_checkpoints` go.

        `last` is the look when a run is over. Raises BadUrl, OSError.
        """
        with self.open_checkpoints(job) as root:
            return finder.look(root, job.checkpoints, last=last)

    def remove_leftovers(self, job: JobRecord) -> None:
        """Remove the checkpoints that looks have set aside. May take long. Raises BadUrl,
        OSError."""
        with self.open_checkpoints(job) as root:
            remove_leftovers(root)

    def export(self, job: JobRecord, abandoned: threading.Event) -> Exported:
        """Bring the artefacts to their destination. Raises Unprepared, Abandoned, OSError."""
        try:
            return self._artefacts.export(
                job, self.output(job), self.directory(job.job_id), abandoned
            )
        except (BadUrl, CannotConvert) as error:
            raise Unprepared(str(error)) from None

    def release(self, job_id: str) -> None:
        """Let go of what was fetched for a job."""
        self._inputs.release(job_id)


def _make_plain(own: Directory, name: str) -> None:
    """Make a directory of the job's, in the place of anything else that is there."""
    if own.exists(name) and not stat.S_ISDIR(own.stat(name).st_mode):
        own.unlink(name)
    own.make_directory(name, exist_ok=True).close()


def _place_script(own: Directory, script: BinaryIO, name: str, abandoned: threading.Event) -> None:
    """Copy the script to where the job's processes can read it and not write. Raises
    LimitReached, Abandoned, OSError."""
    remove_tree(own, PROGRAM)
    with own.make_directory(PROGRAM) as program, program.create(name) as copy:
        try:
            copy_content(script.fileno(), copy.fileno(), abandoned, limit=_MAX_SCRIPT)
        except LimitReached as error:
            raise LimitReached(f"The script is too large: {error.strerror}.") from None
        os.fchmod(copy.fileno(), 0o644)


def _place_evaluator(own: Directory, abandoned: threading.Event) -> None:
    """Copy what an evaluation's script needs beside it."""
    with (
        own.open_directory(PROGRAM) as program,
        program.make_directory(EVALUATOR.name) as folder,
    ):
        for path in sorted(EVALUATOR.glob("*.py")):
            with open(path, "rb") as module, folder.create(path.name) as copy:
                copy_content(module.fileno(), copy.fileno(), abandoned)
                os.fchmod(copy.fileno(), 0o644)
