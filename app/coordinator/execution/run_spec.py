"""What the runner is told of a run: the processes, their variables, what they may touch."""

import errno
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from app.coordinator.data.drive import Drive
from app.coordinator.engines.local.sandbox_spec import SandboxSpecs
from app.coordinator.execution.inputs import access_of
from app.coordinator.execution.ranks import RankPlace, places_of
from app.coordinator.execution.run_limits import RunLimits
from app.coordinator.execution.workspace import Workspace
from app.coordinator.isolation.levels import Level
from app.coordinator.jobs.model import JobRecord, Kind
from app.coordinator.jobs.secrets import JobSecrets, unknown
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.submission.environment import own_variables
from app.credentials import MASK
from app.files.json_files import read_json

#: What Python is told beside the script. An evaluator imports nothing that a model has left.
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
        limits: RunLimits,
        drive: Drive,
        node_id: str,
        notify: Path,
        grace: float,
        readable: tuple[str, ...],
        sandboxes: SandboxSpecs,
    ) -> None:
        """`readable` is what every process may read, beside what is its job's."""
        self._workspace = workspace
        self._secrets = secrets
        self._limits = limits
        self._drive = drive
        self._node_id = node_id
        self._notify = notify
        self._grace = grace
        self._readable = readable
        self._sandboxes = sandboxes

    def of(self, job: JobRecord) -> dict[str, Any]:
        """The specification of the job's newest run. Raises BadUrl, OSError.

        Variables that are credentials are masked in it: the runner puts them
        in from the file that `secrets` names.
        """
        environment, left_out = own_variables(job.submission.training_config.environment)
        directory = self._workspace.directory(job.job_id)
        resume = self._drive.find(access_of(job), job.resume_from) if job.resume_from else None
        checkpoints = self._workspace.checkpoints_path(job)
        metrics_file = directory.run(job.run_count).metrics_file
        script = self._workspace.script(job)
        readable = [
            str(directory.config),
            str(directory.program),
            *self._unchangeable(_inputs(directory)),
            *self._unchangeable([str(resume)] if resume else ()),
        ]
        gpus = self._gpus_of(job)
        isolation = self._sandboxes.of(
            job, directory.run(job.run_count), gpus=gpus, readable=readable
        )
        given = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            # Lines are to be seen when they are printed, not 8 KiB later.
            "PYTHONUNBUFFERED": "1",
        }
        own = {
            "SCAIMIND_JOB_ID": job.job_id,
            "SCAIMIND_JOB_CONFIG": str(directory.config),
            "SCAIMIND_OUTPUT_DIR": str(directory.output),
            "SCAIMIND_CHECKPOINT_DIR": str(checkpoints),
            "SCAIMIND_RESUME_FROM": str(resume) if resume else "",
            "SCAIMIND_METRICS_FILE": str(metrics_file),
        }
        where = f", going on from {job.resume_from}" if resume else ""
        return {
            "job_id": job.job_id,
            "node_id": job.node_ids[0],
            "grace_seconds": self._grace,
            "notify": str(self._notify),
            # Of this machine, to be measured.
            "gpus": gpus,
            "announce": f"Run {job.run_count} begins on {', '.join(job.node_ids)}{where}.",
            "warnings": [
                f"{name} of training_config.environment is left out: {reason}."
                for name, reason in left_out.items()
            ]
            + ([lacking] if (lacking := self._limits.lacking(job)) else []),
            "limits": self._limits.section(
                job,
                [directory.work, directory.output, directory.temporary],
                file=metrics_file,
                checkpoints=checkpoints,
                own_processes=_counted_apart(isolation),
            ),
            "secrets": self._secrets_file(job, environment),
            "ranks": [
                {
                    "node_id": place.node_id,
                    # Relative: arguments are open to all processes, and the path has the job's id.
                    # With a slash: a script may be called `-c.py`.
                    "argv": [
                        sys.executable,
                        *_OPTIONS[job.kind],
                        os.path.join(".", os.path.relpath(script, directory.work)),
                    ],
                    "cwd": str(directory.work),
                    "env": {
                        **given,
                        **environment,
                        "HOME": str(directory.work),
                        **self._sandboxes.variables(isolation),
                        # Indices are the driver's, not those of CUDA's own order.
                        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
                        "CUDA_VISIBLE_DEVICES": self._visible_gpus(place),
                        **place.environment,
                        **own,
                        "SCAIMIND_NODE_ID": place.node_id,
                        "SCAIMIND_GPUS": ",".join(map(str, place.gpus)),
                    },
                }
                for place in places_of(job)
            ],
            "isolation": isolation,
            "confinement": {
                "readable": [*self._readable, *readable],
                "writable": [
                    str(directory.work),
                    str(directory.output),
                    str(directory.temporary),
                    str(checkpoints),
                    str(metrics_file),
                ],
            },
        }

    def _unchangeable(self, paths: Iterable[str]) -> list[str]:
        """What can be opened by its path: a job could lay a link in the place of the rest."""
        return [str(self._drive.unchangeable(Path(path))) for path in paths]

    def _secrets_file(self, job: JobRecord, environment: Mapping[str, str]) -> str:
        """Where the values of masked variables are; empty if there are none. Raises OSError."""
        if lost := unknown(environment, self._secrets.of(job.job_id)):
            raise FileNotFoundError(
                errno.ENOENT, f"what it was given as {', '.join(lost)} is not kept any more"
            )
        return str(self._secrets.path(job.job_id)) if MASK in environment.values() else ""

    def _gpus_of(self, job: JobRecord) -> list[int]:
        """The GPUs of this machine that the job holds."""
        allocations = [
            allocation for allocation in job.placement if allocation.node_id == self._node_id
        ]
        return sorted({index for allocation in allocations for index in allocation.gpus})

    def _visible_gpus(self, place: RankPlace) -> str:
        """GPUs of this machine; those of a virtual node are not there."""
        if place.node_id != self._node_id:
            return ""
        return self._sandboxes.visible_gpus(place.gpus)


def _counted_apart(isolation: Mapping[str, Any]) -> bool:
    """Whether the kernel counts a run's processes apart from all others: by their user, or by
    their user namespace, which it does not do for root."""
    if isolation["uid"] is not None:
        return True
    return isolation["level"] == Level.NAMESPACES and os.getuid() != 0


def _inputs(directory: JobDir) -> list[str]:
    """What was fetched for the job, wherever it was put."""
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
    return paths
