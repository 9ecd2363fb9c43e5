"""Ends a run that nothing else can end: kills its runner, and all that the runner started."""

import os
import select
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from app.coordinator.engines.local.launcher import (
    FORMER_RUNNER_MODULES,
    RUNNER_MODULE,
    finalize_lost_run,
)
from app.coordinator.storage.job_directory import JobDir, RunDir
from app.coordinator.storage.locks import Locked, locked
from app.coordinator.storage.process_identity import process_identity
from app.files.json_files import read_json

#: Seconds: how long a process that was killed may take to go.
_PATIENCE: Final = 10.0

log = structlog.get_logger("scaimind.coordinator")


def kill_run(directory: RunDir) -> None:
    """Kill a run's runner if it lives, and end the run for it. Blocks; once is as good as twice.

    Nothing of the run lives afterwards. A run without a directory has nothing
    that lives. Raises OSError, a TimeoutError among them for a runner that
    cannot be found or killed.
    """
    if not directory.job.path.is_dir():
        return
    while True:
        try:
            with locked(directory.job.lock, wait=False):
                if directory.path.is_dir() and not directory.exit.exists():
                    _finalize(directory)
                return
        except Locked:
            _kill_holder(directory)


def kill_newest_run(directory: JobDir) -> None:
    """Do as `kill_run` for the newest run of a job of which nothing else is known."""
    runs = directory.run(0).path.parent
    with suppress(FileNotFoundError):
        numbers = [int(entry.name) for entry in runs.iterdir() if entry.name.isdecimal()]
        kill_run(directory.run(max(numbers, default=0)))


def _finalize(directory: RunDir) -> None:
    try:
        finalize_lost_run(directory)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the runner is dead, and whatever state its files are in stays so
        log.error("run_not_buried", job_id=directory.job.path.name, exc_info=error)


def _kill_holder(directory: RunDir) -> None:
    pid = _holder(directory.job.lock) or _named(directory)
    if pid is None:
        with suppress(Locked), locked(directory.job.lock, wait=False):
            # It has left meanwhile.
            return
        raise TimeoutError(0, "the runner cannot be found")
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The number may be another process's by now; the descriptor stays with the one it names.
        if not _is_runner(pid):
            raise TimeoutError(0, "somebody else holds the job's lock")
        log.warning("runner_killed", job_id=directory.job.path.name, pid=pid)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        gone = select.poll()
        gone.register(process, select.POLLIN)
        if not gone.poll(_PATIENCE * 1000):
            raise TimeoutError(0, "the runner cannot be killed")
    finally:
        os.close(process)


def _holder(lock: Path) -> int | None:
    """Who holds the lock, as the kernel tells; None if it does not, as in some file systems."""
    status = lock.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        # Those who wait for a lock have an arrow before it.
        fields = line.split()[1:]
        if len(fields) > 4 and fields[0] == "FLOCK" and fields[4] == device:
            return int(fields[3])
    return None


def _named(directory: RunDir) -> int | None:
    """The runner by what it wrote of itself, if it is still the same process."""
    who = read_json(directory.runner)
    if who is None:
        return None
    pid = int(who["pid"])
    with suppress(FileNotFoundError, ProcessLookupError):
        if process_identity(pid).items() <= who.items():
            return pid
    return None


def _is_runner(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return any(name.encode() in words for name in (RUNNER_MODULE, *FORMER_RUNNER_MODULES))
    return False
