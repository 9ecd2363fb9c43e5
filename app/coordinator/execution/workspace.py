"""The directories of jobs, and what is done in them: prepared, searched, exported, cleared.

What is done takes a directory and returns plain records (`preparation`,
`checkpoints`, `artefacts`): it can be done wherever the directory is.
"""

import errno
import threading
from contextlib import suppress
from pathlib import Path

from app.coordinator.data.conversion.errors import CannotConvert
from app.coordinator.data.drive import CHECKPOINTS, BadUrl, Drive
from app.coordinator.execution.artefacts import Artefacts, Exported, drop_output
from app.coordinator.execution.checkpoints import CheckpointFinder, remove_leftovers
from app.coordinator.execution.inputs import Inputs, access_of
from app.coordinator.execution.models import Models
from app.coordinator.execution.preparation import Preparation, Unprepared, script_name
from app.coordinator.execution.project import Projects
from app.coordinator.jobs.model import Checkpoint, JobRecord
from app.coordinator.logs import log as logs
from app.coordinator.logs import run_starts
from app.coordinator.metrics.snapshots import MetricsWriter
from app.coordinator.packages.build_log import Say
from app.coordinator.packages.entries import Environment
from app.coordinator.packages.installing import Installer
from app.coordinator.storage import job_directory_steps as jobdir_steps
from app.coordinator.storage.job_directory import JobDir
from app.files.directory import Directory
from app.files.removing import remove_tree


class Workspace:
    """Sets up jobs' directories and brings their artefacts away. Blocks: call it in a thread."""

    #: Whether a store may hold its calls up for as long as it says nothing.
    asks_store = False

    def __init__(
        self,
        *,
        jobs: Path,
        drive: Drive,
        inputs: Inputs,
        models: Models,
        projects: Projects,
        installer: Installer,
        artefacts: Artefacts,
    ) -> None:
        self._jobs = jobs
        self._drive = drive
        self._inputs = inputs
        self._installer = installer
        self._artefacts = artefacts
        self._preparation = Preparation(
            drive=drive, inputs=inputs, models=models, projects=projects, installer=installer
        )

    def directory(self, job_id: str) -> JobDir:
        """The directory of a job."""
        return JobDir(self._jobs / job_id)

    def create(self, job_id: str) -> None:
        """Make the directory of a new job, with an empty log."""
        directory = self.directory(job_id)
        directory.path.mkdir(parents=True, exist_ok=True)
        directory.lock.touch()
        logs.create(directory.log)
        run_starts.create(directory.log)
        MetricsWriter(directory.metrics).close()
        jobdir_steps.mark_new(directory)

    def discard(self, job_id: str) -> None:
        """Remove the directory of a job that was not taken up. Raises OSError."""
        with Directory.open(self._jobs, follow=True) as jobs:
            remove_tree(jobs, job_id)

    def clear_temporary(self, job: JobRecord) -> None:
        """Remove what a run left in its TMPDIR, and its copy of the working directory."""
        directory = self.directory(job.job_id)
        # What cannot be removed now is removed before the next run, or with the job.
        with suppress(OSError), Directory.open(directory.path) as own:
            remove_tree(own, directory.temporary.name)
            remove_tree(own, directory.project.name)

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

    def prepare(self, job: JobRecord, say: Say, abandoned: threading.Event) -> None:
        """Set up the job's directory. Raises Unprepared, Abandoned, OSError."""
        self.clear_temporary(job)
        self.release(job.job_id)
        if job.artefacts_of:
            self._require_artefacts(job)
            return
        try:
            self.open_checkpoints(job).close()
        except BadUrl as error:
            raise Unprepared(str(error)) from None
        self._preparation.prepare(job, self.directory(job.job_id), say, abandoned)

    def output(self, job: JobRecord) -> Path:
        """Where the job's artefacts are, or those of the job that it only exports."""
        return self.directory(job.artefacts_of or job.job_id).output

    def _require_artefacts(self, job: JobRecord) -> None:
        try:
            Directory.open(self.output(job)).close()
        except (FileNotFoundError, NotADirectoryError):
            raise Unprepared(self.no_artefacts(job)) from None

    def no_artefacts(self, job: JobRecord) -> str:
        """Say that there is nothing to export."""
        return (
            f"The artefacts of {job.artefacts_of} no longer exist. Retry it with the"
            " checkpoint_id of one of its checkpoints, or submit it again."
        )

    def script(self, job: JobRecord) -> Path:
        """The job's copy of its script, which it cannot write.

        A job that was prepared by a coordinator before the directory's format
        2, and never started, has it among its own files.
        """
        directory = self.directory(job.job_id)
        if job.program is not None and job.program.script:
            return directory.project / job.program.script
        script = directory.program / script_name(job)
        return script if script.is_file() else directory.work / script.name

    def environment(self, job: JobRecord) -> Environment | None:
        """Return the packages of the job's own; None if it has none. Raises FileNotFoundError if
        they are gone."""
        if job.program is None or not job.program.requirements:
            return None
        if (environment := self._installer.of_job(job.job_id)) is None:
            raise FileNotFoundError(errno.ENOENT, "the job's packages no longer exist")
        return environment

    def checkpoints(
        self, job: JobRecord, finder: CheckpointFinder, *, last: bool = False
    ) -> tuple[Checkpoint, ...]:
        """The complete checkpoints of a job, the oldest first; those over `max_checkpoints` go.

        `last` is the look when a run is over. Raises BadUrl, OSError.
        """
        with self.open_checkpoints(job) as root:
            return finder.look(root, job.checkpoints, last=last)

    def run_over(self, job: JobRecord) -> list[str]:
        """Have count what the job's newest run has written, which has just ended: what follows
        from its end goes on from there. Can be done again. Raises OSError.

        Returns what the job's log is to say, in sentences.
        """
        return []

    def remove_leftovers(self, job: JobRecord) -> None:
        """Remove the checkpoints that looks have set aside. May take long. Raises BadUrl,
        OSError."""
        with self.open_checkpoints(job) as root:
            remove_leftovers(root)

    def drop_output(self, job: JobRecord) -> None:
        """Remove the artefacts of a job that has brought them away. Raises OSError."""
        drop_output(self.directory(job.job_id))

    def export(self, job: JobRecord, abandoned: threading.Event) -> Exported:
        """Bring the artefacts to their destination. Raises Unprepared, Abandoned, OSError."""
        try:
            return self._artefacts.export(
                job, self.output(job), self.directory(job.job_id), abandoned
            )
        except (BadUrl, CannotConvert) as error:
            raise Unprepared(str(error)) from None

    def release(self, job_id: str) -> None:
        """Let go of what was fetched for a job, and of its packages. Raises OSError."""
        self._inputs.release(job_id)
        self._installer.release(job_id)
