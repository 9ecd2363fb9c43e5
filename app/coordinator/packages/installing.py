"""The environment that a job's requirements ask for: one that is there, or a new one."""

import errno
import hashlib
import os
import threading
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from app.coordinator.engines.programs import ProgramEnd, Programs, ProgramSpec
from app.coordinator.jobs.model import JobRecord, Program
from app.coordinator.logs.lines import Line
from app.coordinator.packages import uv
from app.coordinator.packages.base import Base, find_base
from app.coordinator.packages.build_log import BuildLog, Say
from app.coordinator.packages.entries import Environment
from app.coordinator.packages.environments import Environments
from app.coordinator.packages.finishing import BadEnvironment, Installed, finish, packages_of
from app.coordinator.packages.requirement_files import (
    BadRequirements,
    Requirements,
    read_requirements,
)
from app.coordinator.packages.uv import PackageSource
from app.files.directory import Directory
from app.shortening import quoted
from generated.mindcoordinator.v1.watch_pb2 import LogLevel

_MIB: Final = 1024**2
#: Bytes with which an installation begins; with less it waits.
_LEAST: Final = 256 * _MIB
#: What uv says of a file for which there are no wheels.
_NO_WHEELS: Final = "source"


class CannotInstall(Exception):
    """The packages cannot be installed. The message is for the job's owner."""


class _TooLarge(Exception):
    """The packages do not fit into the room that they were given. The message is as above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallLimits:
    """Of one environment."""

    #: Seconds to make it.
    timeout: float
    #: Bytes of it and of what it is made of, its tenant's cache included.
    size_bytes: int
    #: Files and directories of the same.
    files: int
    #: Bytes of main memory to make it, for a job that asked for none.
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a job asks for."""

    job: JobRecord
    program: Program
    project: Path
    requirements: Requirements
    base: Base
    key: str


class Installer:
    """Blocks: call it in a thread. Safe to use from several threads."""

    def __init__(
        self,
        *,
        programs: Programs,
        environments: Environments,
        source: PackageSource,
        limits: InstallLimits,
        clock: Callable[[], int],
    ) -> None:
        self._programs = programs
        self._environments = environments
        self._source = source
        self._limits = limits
        self._clock = clock

    def provide(
        self,
        job: JobRecord,
        program: Program,
        project: Path,
        *,
        say: Say,
        abandoned: threading.Event,
    ) -> Environment:
        """Return the environment of a job, in use until `release`.

        `project` is the job's own copy of its working directory. Where other
        jobs of the tenant install packages, it waits for them: uv's cache is the
        tenant's, and who asks for the same has it made once. Raises
        CannotInstall, Abandoned, OSError.
        """
        wanted = self._wanted(job, program, project, abandoned)
        name = quoted(program.requirements)

        def found() -> Environment | None:
            entry = self._environments.take(wanted.key, job.job_id, self._clock())
            if entry is not None:
                _tell(say, f"The packages of {name} are there already.")
            return entry

        def waits() -> None:
            _tell(say, "Waiting for another job of the tenant that installs packages.")

        if (entry := found()) is not None:
            return entry
        with self._environments.turn(job.tenant_id, abandoned, waits=waits):
            return found() or self._install(wanted, say, abandoned)

    def release(self, job_id: str) -> None:
        """The job uses no environment any more."""
        self._environments.release(job_id)

    def of_job(self, job_id: str) -> Environment | None:
        """Return the environment that a job uses."""
        return self._environments.of_job(job_id)

    def _wanted(
        self, job: JobRecord, program: Program, project: Path, abandoned: threading.Event
    ) -> _Wanted:
        try:
            with Directory.open(project) as directory:
                requirements = read_requirements(directory, program.requirements, abandoned)
        except BadRequirements as error:
            raise CannotInstall(f"{quoted(program.requirements)}: {error}.") from None
        base = find_base()
        told = [
            *(job.tenant_id, program.requirements, requirements.digest, base.digest),
            *(str(program.allow_source_builds), *self._source.arguments),
        ]
        key = hashlib.sha256(orjson.dumps(told)).hexdigest()
        return _Wanted(job, program, project, requirements, base, key)

    def _install(self, wanted: _Wanted, say: Say, abandoned: threading.Event) -> Environment:
        """Make the environment, in as much room as it takes and the settings allow."""
        # What it had was made of something else: nobody must wait for the room of that.
        self._environments.release(wanted.job.job_id)
        most = min(self._limits.size_bytes, self._environments.limit_bytes)
        least = max(1, min(_LEAST, most // 8))

        def waits() -> None:
            _tell(
                say,
                "Waiting for room: the packages of jobs that run, or that are being installed,"
                " take up packages_bytes. It goes on when enough of those have ended.",
            )

        while True:
            with self._environments.promised(least, most, abandoned, waits=waits) as size:
                try:
                    return self._install_in(size, wanted, say, abandoned)
                except _TooLarge as error:
                    if size >= most:
                        raise CannotInstall(str(error)) from None
            # It had less than it may: what others have.
            least = size + (most - size + 1) // 2
            _tell(say, f"The packages need more than the {size / _MIB:.0f} MiB that were left.")

    def _install_in(
        self, size: int, wanted: _Wanted, say: Say, abandoned: threading.Event
    ) -> Environment:
        """Make the environment in so many bytes. Raises _TooLarge, and as `provide`."""
        began = time.monotonic()
        _tell(say, f"Installing the packages of {quoted(wanted.program.requirements)}.")
        path = self._environments.begin()
        try:
            made = self._make(path, wanted, size, say, abandoned)
            entry = self._environments.finish(
                path,
                tenant_id=wanted.job.tenant_id,
                key=wanted.key,
                pinned=made.names <= wanted.requirements.pinned,
                size_bytes=made.size_bytes,
                job_id=wanted.job.job_id,
                now=self._clock(),
            )
        except BaseException:
            self._environments.discard(path)
            raise
        _tell(
            say,
            f"Installed {len(made.names)} packages, {made.size_bytes / _MIB:.1f} MiB, in"
            f" {time.monotonic() - began:.1f} s; {len(wanted.base.distributions)} others are"
            " those of the coordinator's Python.",
        )
        return entry

    def _make(
        self, path: Path, wanted: _Wanted, size: int, say: Say, abandoned: threading.Event
    ) -> Installed:
        """Install everything. Raises _TooLarge, CannotInstall, Abandoned, OSError."""
        root = path / "env"
        venv.EnvBuilder(symlinks=True, with_pip=False).create(root)
        wanted.base.add_to(packages_of(root))
        (path / "constraints.txt").write_text(wanted.base.constraints, encoding="utf-8")
        places = {root: "<environment>", path: "<environments>", wanted.project: "<working_dir>"}
        lines = BuildLog(say, places=places)
        tenant_id = wanted.job.tenant_id
        with self._environments.cache(tenant_id, self._clock(), most=size // 2) as cache:
            end = self._run(path, wanted, cache, size, lines, abandoned)
        lines.close()
        self._check(end, lines, wanted)
        try:
            return finish(root, files=self._limits.files)
        except BadEnvironment as error:
            raise CannotInstall(f"{_failed(wanted)}: {error}.") from None

    def _run(
        self,
        path: Path,
        wanted: _Wanted,
        cache: Path,
        size: int,
        lines: BuildLog,
        abandoned: threading.Event,
    ) -> ProgramEnd:
        root, constraints = path / "env", path / "constraints.txt"
        builds = wanted.program.allow_source_builds
        program = uv.find_uv()
        if program is None:
            raise CannotInstall(NO_UV)
        wheels = self._source.wheels
        return self._programs.run(
            ProgramSpec(
                argv=uv.install_command(
                    program,
                    python=root / "bin" / "python",
                    requirements=wanted.program.requirements,
                    constraints=constraints,
                    source=self._source,
                    allow_source_builds=builds,
                ),
                cwd=wanted.project,
                environment=uv.environment(cache),
                place=path,
                # Builders write into the folder that they build.
                writable=(root, cache, *([wanted.project] if builds else [])),
                temporary=path / "tmp",
                readable=(
                    *(constraints, *([] if builds else [wanted.project])),
                    *([wheels] if wheels is not None else []),
                ),
                network=wheels is None,
                timeout=self._limits.timeout,
                memory_bytes=wanted.job.resource_request.memory or self._limits.memory_bytes,
                size_bytes=size,
                files=self._limits.files,
            ),
            output=lines.take,
            abandoned=abandoned,
        )

    def _check(self, end: ProgramEnd, lines: BuildLog, wanted: _Wanted) -> None:
        """Raise _TooLarge or CannotInstall unless it went well; OSError for a full disk."""
        failed = _failed(wanted)
        if end.ended_for:
            text = (
                f"{failed}: uv {end.ended_for} (settings packages_timeout, environment_bytes,"
                " environment_files)."
            )
            raise _TooLarge(text) if end.too_large else CannotInstall(text)
        if not end.status:
            return
        reason = lines.reason()
        if os.strerror(errno.EFBIG) in reason:
            # A single file of it is larger than all of it may be.
            raise _TooLarge(f"{failed}: {reason} (setting environment_bytes).")
        if os.strerror(errno.ENOSPC) in reason:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        advice = ""
        if not wanted.program.allow_source_builds and _NO_WHEELS in reason:
            advice = (
                " Only wheels are installed unless framework.config.allow_source_builds is true."
            )
        how = (
            f"exited with status {end.status}"
            if end.status > 0
            else f"was ended by signal {-end.status}"
        )
        raise CannotInstall(f"{failed}: uv {how}: {reason}{advice}")


#: Why nothing can be installed where uv is not.
NO_UV: Final = (
    "this coordinator has no uv; install it for the coordinator's Python (pip install uv) and"
    " restart the coordinator"
)


def _failed(wanted: _Wanted) -> str:
    return f"The packages of {quoted(wanted.program.requirements)} could not be installed"


def _tell(say: Say, text: str) -> None:
    say(Line(LogLevel.LOG_LEVEL_INFO, text))
