"""What a run may use of this machine: what its job asked for, and bounds for what cannot be asked.

What a job did not ask for is not limited; it comes last instead: without
`cpu_count` its processes are nice, and without `memory_bytes` they are the
first that go when memory is short.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import psutil
import structlog

from app.coordinator.isolation.seccomp import NoFilter, make_affinity_filter
from app.coordinator.jobs.model import JobRecord
from app.coordinator.resources.cgroups import NoGroups, find_parent, run_group
from app.coordinator.resources.process_room import (
    SMALLEST_SHARE,
    ProcessRoom,
    find_process_room,
    most_of_user,
)
from app.coordinator.settings.coordinator import CoordinatorConfig

_GIB: Final = 1024**3
#: Of processes that use cores that others do without.
_NICE: Final = 10
#: Added to the share of memory by which the kernel chooses whom it ends when there is none left
#: (proc(5), oom_score_adj): runs before all else, those that asked for no memory before others.
_LAST_RESORT: Final = {True: 500, False: 800}

log = structlog.get_logger("scaimind.coordinator")


class RunLimits:
    """Makes the section `limits` of runs' specifications."""

    def __init__(
        self,
        *,
        cores: Sequence[int],
        memory: int,
        processes: int,
        open_files: int,
        disk_bytes: int,
        files: int,
        checkpoint_bytes: int = 0,
        log_bytes: int = 0,
        metrics_bytes: int = 0,
        affinity_filter: str = "",
        groups: Path | None = None,
        process_room: ProcessRoom | None = None,
        cluster_cores: int = 1,
        user_processes: int = 0,
    ) -> None:
        """`cores` are the numbers of the cores of this machine that may be used, `memory` what it
        has in bytes; the rest is what any run may use at most. `affinity_filter` is the seccomp
        filter of runs with cores of their own; empty if there is none. `groups` is the control
        group below which runs can have groups of their own.

        `process_room` is divided among runs by cores: half of it among those that asked for
        some of the `cluster_cores` that all nodes have together, half among as many that asked
        for none. `user_processes` is what the processes of this user may come to in all, where a
        run's are not counted apart; 0 sets no bound."""
        self._cores = tuple(cores)
        self._memory = memory
        self._processes = processes
        self._open_files = open_files
        self._disk_bytes = disk_bytes
        self._files = files
        self._checkpoint_bytes = checkpoint_bytes
        self._log_bytes = log_bytes
        self._metrics_bytes = metrics_bytes
        self._affinity_filter = affinity_filter
        self._groups = groups
        self._process_room = process_room
        self._process_parts = 2 * cluster_cores
        self._user_processes = user_processes

    @classmethod
    def of_machine(cls, config: CoordinatorConfig, *, cluster_cores: int) -> Self:
        """Those of this machine, for nodes that have `cluster_cores` together.

        Blocks shortly. Raises OSError.
        """
        disk = shutil.disk_usage(config.data_dir).total
        try:
            affinity_filter = make_affinity_filter()
        except NoFilter as error:
            affinity_filter = ""
            log.warning("cores_can_be_left", reason=str(error))
        groups = None
        try:
            groups = find_parent()
        except NoGroups as error:
            log.info("memory_is_read", reason=str(error))
        room = find_process_room(runs=2 * cluster_cores)
        limits = cls(
            cores=sorted(os.sched_getaffinity(0)),
            memory=psutil.virtual_memory().total,
            processes=config.job_processes,
            open_files=config.job_open_files,
            disk_bytes=config.job_disk_bytes or disk // 2,
            files=config.job_files,
            checkpoint_bytes=config.job_checkpoint_bytes,
            log_bytes=config.job_log_bytes,
            metrics_bytes=config.job_metrics_bytes,
            affinity_filter=affinity_filter,
            groups=groups,
            process_room=room,
            cluster_cores=cluster_cores,
            user_processes=most_of_user(room),
        )
        limits._log_processes(room)
        return limits

    def _log_processes(self, room: ProcessRoom) -> None:
        """Log how many processes a run may have here, and what sets the bound."""
        about = {
            "without_cpu_count": self._processes_of_parts(1),
            "with_all_cores": self._processes_of_parts(self._process_parts // 2),
            "job_processes": self._processes,
            "left_for_runs": room.left,
            "bound": f"{room.source} = {room.limit}",
        }
        if room.left < SMALLEST_SHARE * self._process_parts:
            log.warning("processes_short", **about)
        else:
            log.info("processes_of_a_run", **about)

    def section(
        self,
        job: JobRecord,
        directories: Sequence[Path],
        *,
        file: Path,
        checkpoints: Path,
        own_processes: bool,
    ) -> dict[str, Any]:
        """What the job's newest run may use.

        `directories` and `file` are what it may write, beside its `checkpoints`.
        `own_processes` tells that RLIMIT_NPROC counts the run's processes and
        no others; else the runner counts them.
        """
        memory = _memory_of(job)
        cores = self._cores_of(job)
        # Files in memory have the limit of a single file, too.
        largest = max(self._disk_bytes, self._memory)
        rlimits = {"NOFILE": self._open_files, "FSIZE": largest, "CORE": 0}
        processes = self._processes_of_parts(_cpus_of(job) or len(job.placement))
        if own_processes:
            rlimits["NPROC"] = processes
        elif self._user_processes:
            # Of this user, others and the coordinator included: what it starts itself is not
            # held to it, so it goes on where runs cannot fork any more.
            rlimits["NPROC"] = self._user_processes
        return {
            "rlimits": rlimits,
            "cores": cores,
            "filter": self._affinity_filter if cores else "",
            "nice": 0 if _cpus_of(job) else _NICE,
            "oom_score_adj": _LAST_RESORT[memory > 0],
            "memory": memory if memory <= self._memory else 0,
            "group": str(run_group(self._groups, job.job_id)) if self._groups and memory else "",
            "tasks": processes,
            "disk_bytes": self._disk_bytes,
            "files": self._files,
            "directories": [str(path) for path in directories],
            "file": str(file),
            "checkpoint_bytes": self._checkpoint_bytes,
            "checkpoints": str(checkpoints),
            "log_bytes": self._log_bytes,
            "metrics_bytes": self._metrics_bytes,
        }

    def lacking(self, job: JobRecord) -> str:
        """What the job holds and this machine does not have, as a line for its log; empty if it
        has all. Only virtual nodes give such things."""
        cpus, memory = _cpus_of(job), _memory_of(job)
        missing = [f"{cpus} cores"] if cpus > len(self._cores) else []
        if memory > self._memory:
            missing.append(f"{memory / _GIB:.1f} GiB of memory")
        if not missing:
            return ""
        return (
            f"This machine does not have {' and '.join(missing)}. They are accounted for on"
            f" {', '.join(job.node_ids)}, and the run is not limited to them."
        )

    def _processes_of_parts(self, parts: int) -> int:
        if self._process_room is None:
            return self._processes
        return min(self._processes, self._process_room.share(parts, self._process_parts))

    def _cores_of(self, job: JobRecord) -> list[int]:
        """The cores that are the run's own; empty where it may use all.

        A node of more cores than this machine has gives each of those several
        times.
        """
        if not _cpus_of(job) or any(
            len(allocation.cores) < allocation.cpus for allocation in job.placement
        ):
            return []
        own = {
            self._cores[core % len(self._cores)]
            for allocation in job.placement
            for core in allocation.cores
        }
        return sorted(own) if len(own) < len(self._cores) else []


def _cpus_of(job: JobRecord) -> int:
    return sum(allocation.cpus for allocation in job.placement)


def _memory_of(job: JobRecord) -> int:
    return sum(allocation.memory for allocation in job.placement)
