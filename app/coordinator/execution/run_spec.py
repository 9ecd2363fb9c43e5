"""What a job's run executes, whatever carries it out."""

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from app.coordinator.data.drive import Drive
from app.coordinator.engines.engine import RunSpec
from app.coordinator.execution.inputs import access_of
from app.coordinator.execution.ranks import ranks_of
from app.coordinator.execution.workspace import Workspace
from app.coordinator.jobs.model import JobRecord, Kind
from app.coordinator.jobs.secrets import JobSecrets, unknown
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.submission.environment import own_variables
from app.credentials import MASK
from app.files.json_files import read_json

#: Python's options for the script. An evaluator imports nothing that a model has left.
_OPTIONS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.TRAINING: (),
    Kind.EVALUATION: ("-I", "-u"),
}


class RunSpecs:
    """Makes the specifications of runs. Blocks shortly: it looks into the job's files."""

    def __init__(self, *, workspace: Workspace, secrets: JobSecrets, drive: Drive) -> None:
        self._workspace = workspace
        self._secrets = secrets
        self._drive = drive

    def of(self, job: JobRecord) -> RunSpec:
        """Return the specification of the job's newest run. Raises BadUrl, OSError."""
        environment, left_out = own_variables(job.submission.training_config.environment)
        directory = self._workspace.directory(job.job_id)
        resume = self._drive.find(access_of(job), job.resume_from) if job.resume_from else None
        checkpoints = self._workspace.checkpoints_path(job)
        packages = self._workspace.environment(job)
        where = f", from checkpoint {job.resume_from}" if resume else ""
        return RunSpec(
            announcement=f"Run {job.run_count} begins on {', '.join(job.node_ids)}{where}.",
            warnings=tuple(
                f"{name} of training_config.environment is left out: {reason}."
                for name, reason in left_out.items()
            ),
            script=self._workspace.script(job),
            python=packages.python if packages is not None else None,
            options=_OPTIONS[job.kind],
            arguments=job.program.arguments if job.program else (),
            directory=directory.project if job.program and job.program.working_dir else None,
            environment=environment,
            variables={
                "SCAIMIND_JOB_ID": job.job_id,
                "SCAIMIND_JOB_CONFIG": str(directory.config),
                "SCAIMIND_OUTPUT_DIR": str(directory.output),
                "SCAIMIND_CHECKPOINT_DIR": str(checkpoints),
                "SCAIMIND_RESUME_FROM": str(resume) if resume else "",
            },
            secrets=self._secrets_file(job, environment),
            ranks=ranks_of(job),
            checkpoints=checkpoints,
            readable=self._unchangeable([*_inputs(directory), *([resume] if resume else [])]),
            shared=(packages.root,) if packages is not None else (),
        )

    def _unchangeable(self, paths: Iterable[Path]) -> tuple[Path, ...]:
        """Return what can be opened by its path: a job could lay a link in the place of the
        rest."""
        return tuple(self._drive.unchangeable(path) for path in paths)

    def _secrets_file(self, job: JobRecord, environment: Mapping[str, str]) -> Path | None:
        """Return where the values of masked variables are, if there are any. Raises OSError."""
        if lost := unknown(environment, self._secrets.of(job.job_id)):
            raise FileNotFoundError(
                errno.ENOENT, f"the values of {', '.join(lost)} are no longer stored"
            )
        return self._secrets.path(job.job_id) if MASK in environment.values() else None


def _inputs(directory: JobDir) -> list[Path]:
    """Return what was fetched for the job, wherever it was put."""
    config = read_json(directory.config) or {}
    fetched = [
        *config.get("data_config", {}).get("sources", ()),
        *config.get("benchmarks", ()),
    ]
    paths = [each["local_path"] for each in fetched]
    base = config.get("training_config", {}).get("base_model", {})
    if "local_path" in base:
        paths.append(base["local_path"])
    if "model_path" in config:
        paths.append(config["model_path"])
    return [Path(path) for path in paths]
