"""Where a job's files are.

    <data>/jobs/<job id>/
        lock            held by whoever may write the log: the runner while it lives
        format          which format all of this has, see `jobdir_steps`
        config.json     SCAIMIND_JOB_CONFIG
        log/            entries, their index, and where runs begin, see `logs`
        metrics/        snapshots and their index, see `metrics`
        program/        its script; the training process reads it, and writes nothing there
        work/           the training process's own directory, its HOME
        project/        a run's own copy of framework.config.working_dir, in which it runs
        output/         SCAIMIND_OUTPUT_DIR
        export/         the artefacts in another format, while they are brought away
        tmp/            TMPDIR
        runs/<n>/       one run: run.json, runner.json, notes, notes.json, metrics.jsonl, exit.json;
                        of one on other machines: launch.json, taken, exit.json

Checkpoints are in the drive, `<drive>/<tenant>/jobs/<job id>/checkpoints/`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The directory of a job's script.
PROGRAM: Final = "program"


@dataclass(frozen=True, slots=True)
class JobDir:
    """The directory of one job."""

    path: Path

    @property
    def lock(self) -> Path:
        """The file whose lock its writer holds."""
        return self.path / "lock"

    @property
    def format(self) -> Path:
        """The marker of the directory's format."""
        return self.path / "format"

    @property
    def config(self) -> Path:
        """The submitted configs as JSON."""
        return self.path / "config.json"

    @property
    def log(self) -> Path:
        """The log's directory."""
        return self.path / "log"

    @property
    def metrics(self) -> Path:
        """The metrics' directory."""
        return self.path / "metrics"

    @property
    def program(self) -> Path:
        """Where its script is."""
        return self.path / PROGRAM

    @property
    def project(self) -> Path:
        """Where a run's copy of its working directory is."""
        return self.path / "project"

    @property
    def export(self) -> Path:
        """Where its artefacts are converted."""
        return self.path / "export"

    @property
    def work(self) -> Path:
        """Where the training process runs."""
        return self.path / "work"

    @property
    def output(self) -> Path:
        """Where the training process leaves its artefacts."""
        return self.path / "output"

    @property
    def temporary(self) -> Path:
        """TMPDIR."""
        return self.path / "tmp"

    def run(self, number: int) -> "RunDir":
        """The directory of a run."""
        return RunDir(self.path / "runs" / str(number))


@dataclass(frozen=True, slots=True)
class RunDir:
    """The directory of one run of a job's process."""

    path: Path

    @property
    def spec(self) -> Path:
        """What the runner is to do."""
        return self.path / "run.json"

    @property
    def launch(self) -> Path:
        """What was launched on other machines."""
        return self.path / "launch.json"

    @property
    def taken(self) -> Path:
        """What was taken over of their records."""
        return self.path / "taken"

    @property
    def runner(self) -> Path:
        """Who the runner and the training process are."""
        return self.path / "runner.json"

    @property
    def exit(self) -> Path:
        """How the run was over. Once it exists, no runner begins this run."""
        return self.path / "exit.json"

    @property
    def notes(self) -> Path:
        """What the coordinator has the runner say in the job's log."""
        return self.path / "notes"

    @property
    def notes_said(self) -> Path:
        """How much of it has been said."""
        return self.path / "notes.json"

    @property
    def metrics_file(self) -> Path:
        """SCAIMIND_METRICS_FILE."""
        return self.path / "metrics.jsonl"

    @property
    def job(self) -> JobDir:
        """The job's directory."""
        return JobDir(self.path.parent.parent)
