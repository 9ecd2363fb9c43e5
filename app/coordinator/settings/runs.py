"""Settings of runs: how they are isolated, and what they may use."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, parsed
from app.configuration.values import parse_count, parse_seconds, parse_size, parse_size_or_zero
from app.coordinator.isolation.levels import AUTO, UidRange
from app.coordinator.settings.values import parse_isolation, parse_network, parse_uids


@dataclass(frozen=True, kw_only=True)
class RunSettings(Section):
    """Runs of jobs."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"

    isolation: str = parsed(
        AUTO,
        "Minimum isolation of jobs: `namespaces`, `user`, `landlock` or `none`. The start fails if "
        "the machine does not offer that level or a stronger one. `auto` picks the strongest that "
        "works; below `user` it serves only one tenant.",
        parse_isolation,
    )
    job_network: str = parsed(
        "shared",
        "Network of jobs. `shared`: the machine's network. `none`: only loopback, for jobs on one "
        "node; requires the level `namespaces`.",
        parse_network,
    )
    job_uids: UidRange = parsed(
        UidRange(60706, 61183),
        "User ids for jobs, `<first>-<last>`, if the coordinator runs as root. Each running job "
        "has one of its own. Nothing else may use them.",
        parse_uids,
        example="60706-61183",
    )
    stop_grace: float = parsed(
        30.0, "Time for a stopping process to save a checkpoint.", parse_seconds
    )
    job_processes: int = parsed(
        4096,
        "Maximum number of processes and threads of a run. The limit is lower if all runs together "
        "could otherwise exhaust the system (pid_max, threads-max, pids.max of the coordinator's "
        "control groups, RLIMIT_NPROC): after a reserve, half of the rest is divided by cores "
        "among runs with `cpu_count`, half among as many without. The event `processes_of_a_run` "
        "at the start has the limits.",
        parse_count,
    )
    job_open_files: int = parsed(
        65536,
        "Maximum number of open files of each process of a run, up to the coordinator's own hard "
        "limit.",
        parse_count,
    )
    job_disk_bytes: int = parsed(
        0,
        "Maximum size of a run's working directory, output, /tmp and metrics file together, "
        "including open files that it has removed. Half of the disk that holds data_dir if not "
        "set. Checkpoints do not count.",
        parse_size,
        example="200GiB",
    )
    job_checkpoint_bytes: int = parsed(
        0,
        "Maximum size of all checkpoints of a running job; 0 sets no limit.",
        parse_size_or_zero,
        example="500GiB",
    )
    job_log_bytes: int = parsed(
        1024**3,
        "Maximum size of a job's log. Later lines are counted and left out, and the run "
        "continues; 0 sets no limit.",
        parse_size_or_zero,
    )
    job_metrics_bytes: int = parsed(
        1024**3,
        "Maximum size of a job's metrics. Later snapshots are counted and left out, and the run "
        "continues; 0 sets no limit.",
        parse_size_or_zero,
    )
    job_files: int = parsed(
        2_000_000,
        "Maximum number of files and directories in the directories that job_disk_bytes counts.",
        parse_count,
    )
    working_dir_bytes: int = parsed(
        4 * 1024**3,
        "Maximum size of a job's `working_dir`, packed and unpacked. Each run has a copy, which "
        "counts towards job_disk_bytes.",
        parse_size,
    )
    working_dir_files: int = parsed(
        50_000, "Maximum number of files and directories in a job's `working_dir`.", parse_count
    )
    memory_reserve: int = parsed(
        256 * 1024**2,
        "Main memory to keep available on this machine. If less is left, jobs that did not ask for "
        "memory_bytes are ended, the newest first, one at a time; 0 ends none.",
        parse_size_or_zero,
    )
