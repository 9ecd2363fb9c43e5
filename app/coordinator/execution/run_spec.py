"""What a job's run executes, whatever carries it out."""

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.coordinator.data.drive import Drive
from app.coordinator.engines.engine import CannotLaunch, RunSpec
from app.coordinator.execution.inputs import access_of
from app.coordinator.execution.ranks import ranks_of
from app.coordinator.execution.workspace import Workspace
from app.coordinator.jobs.model import JobRecord, Kind
from app.coordinator.jobs.secrets import JobSecrets, unknown
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.submission.environment import own_variables
from app.coordinator.trainers.asking import NO_ENVIRONMENT, Trainers
from app.coordinator.trainers.models import uses_trainers
from app.coordinator.trainers.program import OPTIONS as TRAINERS_OPTIONS
from app.coordinator.trainers.variables import default_variables
from app.credentials import MASK
from app.files.json_files import read_json

#: The variable that says whether all processes of a run see the same directories.
SHARED_DISK: Final = "SCAIMIND_SHARED_DISK"
#: Python's options for the script. An evaluator imports nothing that a model has left.
_OPTIONS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.TRAINING: (),
    Kind.EVALUATION: ("-I", "-u"),
}


class RunSpecs:
    """Makes the specifications of runs. Blocks shortly: it looks into the job's files."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        secrets: JobSecrets,
        drive: Drive,
        trainers: Trainers,
        leadership: Leadership,
    ) -> None:
        self._workspace = workspace
        self._trainers = trainers
        self._secrets = secrets
        self._drive = drive
        self._leadership = leadership

    def of(self, job: JobRecord) -> RunSpec:
        """Return the specification of the job's newest run. Raises BadUrl, OSError; CannotLaunch
        where there is no environment for it."""
        environment, left_out = own_variables(job.submission.training_config.environment)
        directory = self._workspace.directory(job.job_id)
        resume = self._drive.find(access_of(job), job.resume_from) if job.resume_from else None
        checkpoints = self._workspace.checkpoints_path(job)
        config = read_json(directory.config) or {}
        ranks = ranks_of(job)
        trained = uses_trainers(job.submission.training_config)
        # A model of transformers is evaluated where such models are trained.
        with_trainers = trained or bool(config.get("transformers"))
        python = self._python(job, with_trainers=with_trainers)
        if with_trainers:
            environment = {
                **default_variables(
                    home=directory.work,
                    cores=job.resource_request.cpus,
                    ranks=len(ranks) // len(job.placement),
                    environ=os.environ,
                ),
                **environment,
            }
        return RunSpec(
            announcement=announcement_of(job),
            warnings=warnings_of(left_out),
            script=self._workspace.script(job),
            python=python.program,
            options=TRAINERS_OPTIONS if trained else _OPTIONS[job.kind],
            arguments=job.program.arguments if job.program else (),
            files=directory.path,
            directory=directory.project if job.program and job.program.working_dir else None,
            environment=environment,
            variables={
                "SCAIMIND_JOB_ID": job.job_id,
                "SCAIMIND_JOB_CONFIG": str(directory.config),
                "SCAIMIND_OUTPUT_DIR": str(directory.output),
                "SCAIMIND_CHECKPOINT_DIR": str(checkpoints),
                "SCAIMIND_RESUME_FROM": str(resume) if resume else "",
                SHARED_DISK: "1",
            },
            secrets=self._secrets_file(job, environment),
            ranks=ranks,
            checkpoints=checkpoints,
            readable=self._unchangeable([*_inputs(config), *([resume] if resume else [])]),
            shared=(*python.roots, *map(Path, config.get("shared_paths", ()))),
            term=self._leadership.term,
        )

    def _python(self, job: JobRecord, *, with_trainers: bool) -> "_Python":
        """Return what executes the job's script. Raises CannotLaunch, OSError."""
        if with_trainers:
            try:
                environment = self._trainers.environment
            except OSError as error:
                raise CannotLaunch(
                    f"the environment to train language models in is gone: {error.strerror}"
                ) from None
            if environment is None:
                raise CannotLaunch(NO_ENVIRONMENT)
            return _Python(environment.python, environment.roots)
        packages = self._workspace.environment(job)
        return _Python() if packages is None else _Python(packages.python, (packages.root,))

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


def announcement_of(job: JobRecord) -> str:
    """Return the first line of the job's newest run."""
    where = f", from checkpoint {job.resume_from}" if job.resume_from else ""
    limit = f", for at most {job.max_runtime // 1_000_000} seconds" if job.max_runtime else ""
    return f"Run {job.run_count} begins on {', '.join(job.node_ids)}{where}{limit}."


def warnings_of(left_out: Mapping[str, str]) -> tuple[str, ...]:
    """Return the lines about variables that are left out, by the reasons for that."""
    return tuple(
        f"{name} of training_config.environment is left out: {reason}."
        for name, reason in left_out.items()
    )


@dataclass(frozen=True, slots=True)
class _Python:
    """What executes a script: the coordinator's own Python, or another one with what it is in."""

    program: Path | None = None
    roots: tuple[Path, ...] = ()


def _inputs(config: Mapping[str, Any]) -> list[Path]:
    """Return what was fetched for the job, wherever it was put."""
    fetched = [
        *config.get("data_config", {}).get("sources", ()),
        *config.get("benchmarks", ()),
    ]
    paths = [each["local_path"] for each in fetched if each["local_path"]]
    training = config.get("training_config", {})
    base = training.get("base_model", {})
    preprocess = config.get("data_config", {}).get("preprocess", {})
    for section, name in (
        (base, "local_path"),
        (base, "tokenizer_local_path"),
        (preprocess, "tokenizer_local_path"),
    ):
        if section.get(name):
            paths.append(section[name])
    paths += training.get("hyperparameter_local_paths", {}).values()
    paths += base.get("adapter_base_local_paths", ())
    paths += config.get("base_paths", ())
    paths += [config["model_path"]] if "model_path" in config else []
    shared = config.get("shared_paths", ())
    return [
        Path(path) for path in paths if not path.startswith(tuple(f"{each}/" for each in shared))
    ]
