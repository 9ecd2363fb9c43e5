"""Where a job's files are.

    <data>/jobs/<job id>/
        lock            held by whoever may write the log: the runner while it lives
        format          which format all of this has, see `jobdir_steps`
        config.json     SCAIMIND_JOB_CONFIG
        log/            entries and their index, see `logs`
        metrics/        snapshots and their index, see `metrics`
        program/        its script; the training process reads it, and writes nothing there
        work/           the training process's own directory
        output/         SCAIMIND_OUTPUT_DIR
        export/         the artefacts in another format, while they are brought away
        tmp/            TMPDIR
        runs/<n>/       one run: run.json, runner.json, metrics.jsonl, exit.json

Checkpoints are in the drive, `<drive>/<tenant>/jobs/<job id>/checkpoints/`.
"""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: How a runner is told its directory. Not by an argument: those are open to all processes.
RUN_VARIABLE: Final = "SCAIMIND_RUN_DIRECTORY"
#: The directory of a job's script.
PROGRAM: Final = "program"
#: What a runner is asked with. They are blocked when it starts, until it can answer.
RUNNER_SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR1)


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
    def runner(self) -> Path:
        """Who the runner and the training process are."""
        return self.path / "runner.json"

    @property
    def exit(self) -> Path:
        """How the run was over. Once it exists, no runner begins this run."""
        return self.path / "exit.json"

    @property
    def metrics_file(self) -> Path:
        """SCAIMIND_METRICS_FILE."""
        return self.path / "metrics.jsonl"

    @property
    def job(self) -> JobDir:
        """The job's directory."""
        return JobDir(self.path.parent.parent)


class Locked(Exception):
    """Somebody else holds the lock: the job's runner lives."""


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock on `path`; the system frees it whenever its holder dies.

    Raises Locked if `wait` is not set and somebody else holds it.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Locked(path.name) from None
        yield
    finally:
        os.close(file)


def process_mark(pid: int) -> dict[str, Any]:
    """What tells a process from every other that had or will have its number.

    Raises FileNotFoundError or ProcessLookupError if there is no such process.
    """
    ticks = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return {"pid": pid, "started": f"{boot}/{int(ticks)}"}


def open_process(mark: dict[str, Any]) -> int | None:
    """A pidfd of the process that `process_mark` told of; None if it is gone."""
    try:
        pidfd = os.pidfd_open(mark["pid"])
    except ProcessLookupError:
        return None
    try:
        same = process_mark(mark["pid"]).items() <= mark.items()
    except (FileNotFoundError, ProcessLookupError):
        same = False
    if not same:
        os.close(pidfd)
        return None
    return pidfd
