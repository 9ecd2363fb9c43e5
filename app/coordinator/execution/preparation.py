"""Sets up the directory of a job before it runs: its script, its data, its configuration.

A function of the directory alone: nothing in it is a path that another part of
the coordinator holds. Each step can be done again.
"""

import os
import stat
import threading
from typing import BinaryIO, Final

from app.coordinator.data.drive import BadUrl, Drive
from app.coordinator.evaluations.process import EVALUATOR, SCRIPT, process_config
from app.coordinator.execution.inputs import Inputs, access_of
from app.coordinator.execution.job_config import training_config
from app.coordinator.execution.models import Models
from app.coordinator.execution.project import Projects
from app.coordinator.identity.access import Access
from app.coordinator.jobs.model import JobRecord, Kind, Program
from app.coordinator.logs.lines import Line
from app.coordinator.packages.build_log import Say
from app.coordinator.packages.installing import CannotInstall, Installer
from app.coordinator.storage.job_directory import PROGRAM, JobDir
from app.coordinator.trainers.models import uses_trainers
from app.coordinator.trainers.program import LAUNCHER, place_trainers
from app.files.copying import Abandoned, copy_content
from app.files.directory import Directory, LimitReached
from app.files.json_files import write_json
from app.files.removing import remove_tree
from generated.mindcoordinator.v1.watch_pb2 import LogLevel

_MAX_SCRIPT: Final = 64 * 1024 * 1024


class Unprepared(Exception):
    """Something that the job needs cannot be had; the message is for the caller."""


class Preparation:
    """Sets up jobs' directories. Blocks: call it in a thread."""

    def __init__(
        self,
        *,
        drive: Drive,
        inputs: Inputs,
        models: Models,
        projects: Projects,
        installer: Installer,
    ) -> None:
        self._drive = drive
        self._inputs = inputs
        self._models = models
        self._projects = projects
        self._installer = installer

    def prepare(
        self, job: JobRecord, directory: JobDir, say: Say, abandoned: threading.Event
    ) -> None:
        """Fetch what the job names, install its packages, and write its configuration.

        `say` adds to the job's log. Raises Unprepared, Abandoned, OSError.
        """

        def fetch(url: str) -> str:
            return str(self._inputs.fetch(job, url, abandoned))

        try:
            access = access_of(job)
            with Directory.open(directory.path) as own:
                for path in (directory.work, directory.output, directory.temporary):
                    _check(abandoned)
                    _make_plain(own, path.name)
                if job.kind is Kind.EVALUATION:
                    with open(SCRIPT, "rb") as script:
                        _place_script(own, script, script_name(job), abandoned)
                    _place_evaluator(own, abandoned)
                    config = process_config(job, fetch)
                    self._models.add_evaluated(job, config, fetch)
                elif uses_trainers(job.submission.training_config):
                    remove_tree(own, PROGRAM)
                    with own.make_directory(PROGRAM) as program:
                        place_trainers(program, abandoned)
                    config = training_config(job, fetch)
                    self._models.add_paths(job, config, fetch)
                else:
                    self._place_program(job, access, own, directory, say, abandoned)
                    config = training_config(job, fetch)
            if job.resume_from:
                self._drive.find(access, job.resume_from)
        except (BadUrl, LimitReached, CannotInstall) as error:
            raise Unprepared(str(error)) from None
        config["job_id"] = job.job_id
        _check(abandoned)
        write_json(directory.config, config)

    def _place_program(
        self,
        job: JobRecord,
        access: Access,
        own: Directory,
        directory: JobDir,
        say: Say,
        abandoned: threading.Event,
    ) -> None:
        """Copy the script, or the folder that it is in, and install what that asks for."""
        program = job.program or Program()
        if program.working_dir:
            name = directory.project.name
            if note := self._projects.place(job, program, own, name, abandoned):
                say(Line(LogLevel.LOG_LEVEL_INFO, note))
        if not program.script:
            given = job.submission.training_config.framework.custom_script_path
            with self._drive.filesystem(access).open(given) as script:
                _place_script(own, script, script_name(job), abandoned)
        if program.requirements:
            self._installer.provide(job, program, directory.project, say=say, abandoned=abandoned)


def _check(abandoned: threading.Event) -> None:
    if abandoned.is_set():
        raise Abandoned


def script_name(job: JobRecord) -> str:
    """Return the name of the job's script."""
    if job.kind is Kind.EVALUATION:
        return SCRIPT.name
    if uses_trainers(job.submission.training_config):
        return LAUNCHER
    return job.submission.training_config.framework.custom_script_path.rsplit("/", 1)[-1]


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
            raise LimitReached(f"The script exceeds the limit: {error.strerror}.") from None
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
