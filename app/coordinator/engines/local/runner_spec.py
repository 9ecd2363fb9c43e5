"""What the runner is to do, `run.json`: the processes, their variables, what they may touch."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.coordinator.engines.engine import RankSpec, RunSpec
from app.coordinator.engines.local.run_limits import RunLimits
from app.coordinator.engines.local.sandbox_spec import SandboxSpecs
from app.coordinator.isolation.levels import Level
from app.coordinator.jobs.model import JobRecord
from app.coordinator.storage.job_directory import JobDir, RunDir


class RunnerSpecs:
    """Makes the specifications of runs for their runners. Blocks shortly."""

    def __init__(
        self,
        *,
        limits: RunLimits,
        sandboxes: SandboxSpecs,
        node_id: str,
        notify: Path,
        grace: float,
        readable: tuple[str, ...],
    ) -> None:
        """`readable` is what every process may read, besides what is its job's."""
        self._limits = limits
        self.sandboxes = sandboxes
        self._node_id = node_id
        self._notify = notify
        self._grace = grace
        self._readable = readable

    def of(self, job: JobRecord, directory: RunDir, run: RunSpec) -> dict[str, Any]:
        """Return the specification of a job's run. Raises OSError."""
        own = JobDir(run.files) if run.files is not None else directory.job
        temporary = directory.job.temporary
        readable = [str(own.config), str(own.program), *map(str, run.readable)]
        gpus = self._gpus_of(job)
        shared = [str(path) for path in run.shared]
        isolation = self.sandboxes.of(job, directory, gpus=gpus, readable=readable, reached=shared)
        lacking = self._limits.lacking(job)
        cwd = run.directory or own.work
        writable = list(dict.fromkeys([own.work, own.output, temporary, cwd]))
        met = len(run.ranks) < 2 or "MASTER_ADDR" in run.ranks[0].environment
        meeting = {} if met else _meeting_place()
        return {
            "job_id": job.job_id,
            "node_id": job.node_ids[0],
            "grace_seconds": self._grace,
            "notify": str(self._notify),
            # Of this machine, to be measured.
            "gpus": gpus,
            "announce": run.announcement,
            "warnings": [*run.warnings, *([lacking] if lacking else [])],
            "limits": {
                **self._limits.section(
                    job,
                    writable,
                    file=directory.metrics_file,
                    checkpoints=run.checkpoints,
                    own_processes=_counted_apart(isolation),
                ),
                "log_bytes_before": run.log_bytes_before,
                "metrics_bytes_before": run.metrics_bytes_before,
            },
            "secrets": str(run.secrets or ""),
            # Without this process, the run is ended.
            "keeper": dict(run.keeper),
            "ranks": [
                {
                    "node_id": rank.node_id,
                    "rank": int(rank.environment.get("RANK", 0)),
                    # Relative: arguments are open to all processes, and the path has the job's id.
                    # With a slash: a script may be called `-c.py`.
                    "argv": [
                        str(run.python or sys.executable),
                        *run.options,
                        os.path.join(".", os.path.relpath(run.script, cwd)),
                        *run.arguments,
                    ],
                    "cwd": str(cwd),
                    "env": self._environment(directory, own, run, rank, isolation, meeting),
                }
                for rank in run.ranks
            ],
            "isolation": isolation,
            "confinement": {
                "readable": [*self._readable, *readable, *shared],
                "writable": [
                    *map(str, writable),
                    str(run.checkpoints),
                    str(directory.metrics_file),
                ],
            },
        }

    def _environment(
        self,
        directory: RunDir,
        own: JobDir,
        run: RunSpec,
        rank: RankSpec,
        isolation: dict[str, Any],
        meeting: Mapping[str, str],
    ) -> dict[str, str]:
        path = os.environ.get("PATH", os.defpath)
        return {
            "PATH": f"{run.python.parent}{os.pathsep}{path}" if run.python else path,
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            # Lines are to be seen when they are printed, not 8 KiB later.
            "PYTHONUNBUFFERED": "1",
            **run.environment,
            "HOME": str(own.work),
            **self.sandboxes.variables(isolation),
            # Indices are the driver's, not those of CUDA's own order, which is by speed.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": self._visible_gpus(rank),
            **rank.environment,
            **meeting,
            **run.variables,
            "SCAIMIND_METRICS_FILE": str(directory.metrics_file),
            "SCAIMIND_NODE_ID": rank.node_id,
            "SCAIMIND_GPUS": ",".join(map(str, rank.gpus)),
        }

    def _gpus_of(self, job: JobRecord) -> list[int]:
        """Return the GPUs of this machine that the job holds."""
        allocations = [each for each in job.placement if each.node_id == self._node_id]
        return sorted({index for each in allocations for index in each.gpus})

    def _visible_gpus(self, rank: RankSpec) -> str:
        """Return GPUs of this machine; those of a virtual node are not there."""
        if rank.node_id != self._node_id:
            return ""
        return self.sandboxes.visible_gpus(rank.gpus)


def _counted_apart(isolation: Mapping[str, Any]) -> bool:
    """Whether the kernel counts a run's processes apart from all others: by their user, or by
    their user namespace, which it does not do for root."""
    if isolation["uid"] is not None:
        return True
    return isolation["level"] == Level.NAMESPACES and os.getuid() != 0


def _meeting_place() -> dict[str, str]:
    """Return where ranks find rank 0: a port of this machine that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(listener.getsockname()[1])}
