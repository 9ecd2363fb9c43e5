"""Starts runners, finds those that a former coordinator started, and waits for them."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from app.coordinator.engines.engine import NeverStarted
from app.coordinator.engines.local.exit_status import interruption_of
from app.coordinator.engines.local.runner.recording import RecordBounds
from app.coordinator.engines.local.runner_protocol import (
    LOCK_VARIABLE,
    RUN_VARIABLE,
    RUNNER_SIGNALS,
    leave_exit,
    reserve_exit,
)
from app.coordinator.failures import is_disk_full, is_passing
from app.coordinator.isolation.ending.leftovers import end_leftovers
from app.coordinator.isolation.levels import BEFORE_LEVELS
from app.coordinator.logs.log import LogWriter
from app.coordinator.metrics.metrics_file import Look, MetricsFile
from app.coordinator.metrics.snapshots import MetricsReader, MetricsWriter
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.job_directory import RunDir
from app.coordinator.storage.locks import Locked, locked
from app.coordinator.storage.process_identity import open_process
from app.files.json_files import read_json, write_json

#: Seconds between two looks for a runner that is just starting.
_STARTING: Final = 0.05
#: How much of a metrics file is read again when its runner was killed.
_MOST_METRICS: Final = Look(1024**3, 10_000_000)
#: How a runner's process is known.
RUNNER_MODULE: Final = "app.coordinator.engines.local.runner"
#: By these names too coordinators have started runners, which may still live.
FORMER_RUNNER_MODULES: Final = ("app.coordinator.runner",)
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[4]

log = structlog.get_logger("scaimind.coordinator")


@dataclass(slots=True, eq=False)
class RunnerHandle:
    """A living runner, whoever started it. Close it when it is gone."""

    pidfd: int
    #: Set if this process started it, and so must reap it.
    child: subprocess.Popen[bytes] | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it is gone."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    async def gone(self) -> None:
        """Wait until its process has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self.pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self.pidfd)
        self._reap()

    def _reap(self) -> None:
        """Let the process go if it has ended."""
        if self.child is not None:
            self.child.poll()
        else:
            # A coordinator that found it again may be its parent all the same.
            with suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)

    def close(self) -> None:
        """Let go of it. A runner that lives continues, and is found again by its directory."""
        self._reap()
        os.close(self.pidfd)
        if self.child is not None and self.child.returncode is None:
            # Or its destructor would warn that nobody has waited for it.
            self.child.returncode = 0


def start(directory: RunDir, spec: dict[str, Any], *, lock: tuple[int, ...] = ()) -> RunnerHandle:
    """Start a runner for the run, which holds the `lock` of its user id from then on, if it has
    one. Blocks shortly. Raises OSError; then none was started."""
    directory.path.mkdir(parents=True, exist_ok=True)
    write_json(directory.spec, spec)
    reserve_exit(directory)
    # Nothing of this process's environment: the API secret is in it.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(_PACKAGE_ROOT),
        RUN_VARIABLE: str(directory.path),
    }
    if lock:
        environment[LOCK_VARIABLE] = str(lock[0])
    if spec.get("keeper"):
        return _start_apart(directory, environment, lock)
    with open(directory.path / "runner.err", "ab") as errors, held_back(RUNNER_SIGNALS):
        child = subprocess.Popen(
            [sys.executable, "-m", RUNNER_MODULE],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=environment,
            cwd="/",
            start_new_session=True,
            pass_fds=lock,
        )
    try:
        return RunnerHandle(os.pidfd_open(child.pid), child)
    except OSError:
        child.kill()
        child.wait()
        raise


#: Starts what its arguments are as nobody's child, and tells its process id.
_APART: Final = """
import os, sys
if pid := os.fork():
    print(pid, flush=True)
    os._exit(0)
os.dup2(2, 1)
os.execv(sys.argv[1], sys.argv[1:])
"""


def _start_apart(
    directory: RunDir, environment: dict[str, str], lock: tuple[int, ...]
) -> RunnerHandle:
    """Start a runner that is not this process's child: some hosts end those when they leave.

    Raises OSError; then none was started.
    """
    with open(directory.path / "runner.err", "ab") as errors, held_back(RUNNER_SIGNALS):
        middle = subprocess.Popen(
            [sys.executable, "-ISc", _APART, sys.executable, "-m", RUNNER_MODULE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd="/",
            start_new_session=True,
            pass_fds=lock,
        )
    with middle:
        assert middle.stdout is not None
        told = middle.stdout.read()
        # One that has ended is waited for as well as the runner: its end is there.
        file = os.pidfd_open(middle.pid)
    if not told:
        os.close(file)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    with suppress(ProcessLookupError):
        runner = os.pidfd_open(int(told))
        os.close(file)
        file = runner
    return RunnerHandle(file)


@contextmanager
def held_back(signals: Collection[signal.Signals]) -> Iterator[None]:
    """Block signals for this thread, and for what it starts: the runner takes them when it can."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def find(directory: RunDir) -> RunnerHandle | None:
    """The living runner of a run; None if the run is over. Raises NeverStarted."""
    while True:
        if directory.exit.exists():
            return None
        try:
            with locked(directory.job.lock, wait=False):
                if directory.exit.exists():
                    return None
                if read_json(directory.runner) is None:
                    raise NeverStarted
                # It was killed. From here on no runner may begin this run.
                await asyncio.to_thread(finalize_lost_run, directory)
                return None
        except Locked:
            pass
        if (handle := _open(read_json(directory.runner))) is not None:
            return handle
        # It holds the lock, and is about to tell who it is or to leave.
        await asyncio.sleep(_STARTING)


def _open(who: dict[str, Any] | None) -> RunnerHandle | None:
    """The process, if it is still the one that wrote `who`."""
    if who is None or (pidfd := open_process(who)) is None:
        return None
    return RunnerHandle(pidfd)


def finalize_lost_run(directory: RunDir) -> None:
    """Write the end of a run whose runner was killed, after what it left is cleared away.

    Call with the job's lock held. Blocks. Raises OSError if something of the run will not end.
    """
    who = read_json(directory.runner) or {}
    spec = read_json(directory.spec) or {}
    end_leftovers(who, spec.get("isolation", BEFORE_LEVELS), marker=str(directory.metrics_file))
    for complete in (_complete_log, _save_metrics):
        try:
            complete(directory)
        except Exception as error:  # the files may be in any state, and are only shown
            if isinstance(error, OSError) and is_passing(error) and not is_disk_full(error):
                raise
            log.warning("records_not_completed", job_id=directory.job.path.name, exc_info=error)
    # In the space that was taken for it: the run may have filled the disk.
    reserve_exit(directory)
    leave_exit(
        directory,
        {
            "exit_code": None,
            "stopped": False,
            "failure": "The runner of the training process was killed.",
            "transient": True,
            "last_words": "",
        },
    )


def _complete_log(directory: RunDir) -> None:
    """Cut off a line that the runner had half written, and have the log's end known."""
    LogWriter(directory.job.log).close()


def _save_metrics(directory: RunDir) -> None:
    """Take over the numbers that the runner had not read yet."""
    spec = read_json(directory.spec)
    if spec is None:
        return
    moment = _last_written(directory)
    bounds = RecordBounds.of(spec.get("limits", {}))
    writer = MetricsWriter(directory.job.metrics)
    try:
        taken = writer.last_sequence - spec["metrics_before"]
        file = MetricsFile(directory.metrics_file)
        for snapshots in file.batches(last=True, most=_MOST_METRICS):
            if bounds.metrics and writer.size_bytes + bounds.metrics_before >= bounds.metrics:
                return
            fresh = snapshots[max(taken, 0) :]
            taken -= len(snapshots)
            for snapshot in fresh:
                snapshot.timestamp.FromNanoseconds(moment)
            writer.append(fresh)
    finally:
        writer.close()


def _last_written(directory: RunDir) -> int:
    """When the metrics file was written last, in nanoseconds since 1970.

    Its job may have set that time: it lies within the run.
    """
    try:
        written = directory.metrics_file.lstat().st_mtime_ns
    except OSError:
        written = 0
    return min(max(written, directory.spec.stat().st_mtime_ns), time.time_ns())


def metrics_before(directory: RunDir) -> int:
    """How many snapshots the runs before this one left."""
    try:
        with MetricsReader(directory.job.metrics) as reader:
            return reader.last()
    except FileNotFoundError:
        return 0


def read_end(directory: RunDir) -> RunEnd:
    """How a run was over; buries it if its runner left no word. Raises OSError."""
    with locked(directory.job.lock, wait=True):
        if not directory.exit.exists():
            finalize_lost_run(directory)
    end = read_json(directory.exit) or {}
    return RunEnd(
        exit_code=end.get("exit_code"),
        interruption=interruption_of(end.get("exit_code")),
        stopped=end.get("stopped", False),
        failure=end.get("failure", ""),
        transient=end.get("transient", False),
        last_words=end.get("last_words", ""),
    )
