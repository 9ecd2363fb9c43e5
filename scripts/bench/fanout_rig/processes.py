"""Processes of the benchmark: started on one core, spoken to in lines, measured, stopped by pid."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil

RIG = Path(__file__).resolve().parent
ROOT = RIG.parents[2]
#: How long an answer or an exit may take before the run is given up, seconds.
PATIENCE = 60.0


class RigError(Exception):
    """The benchmark cannot go on; the text says why."""


class WatchersDropped(RigError):
    """A server has closed watchers, or told them of a gap, as it does where the machine stalls."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core serves and which one makes the load."""

    server: int
    load: int

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """The first two that this process may use. Raises `RigError` when there is one only."""
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            raise RigError("two cores are needed: one for the server, one for the load")
        return cls(server=usable[0], load=usable[1])


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the benchmark's Python processes."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(extra or {})}


def python(*arguments: str) -> list[str]:
    """A command line that runs a module with this interpreter."""
    return [sys.executable, "-m", *arguments]


@contextlib.contextmanager
def started(
    command: Sequence[str],
    *,
    core: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    piped: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command on one core, its stderr (and stdout, unless `piped`) into `log`.

    Leaving asks it to stop, and kills it when it does not.
    """
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else sink,
            stderr=sink,
            env=None if env is None else dict(env),
            cwd=log.parent,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        if process.stdin:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in psutil.wait_procs(children, timeout=5)[1]:
            child.kill()
    if process.stdout:
        process.stdout.close()


class Dialog:
    """Commands to a process, one a line, and its answers, one JSON object a line."""

    def __init__(self, process: subprocess.Popen[bytes], *, name: str, log: Path) -> None:
        self._process = process
        self._name = name
        self._log = log
        self._pending = b""

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def ask(self, command: str, *, patience: float = PATIENCE) -> dict[str, Any]:
        """Sends a command and waits for the answer to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        return self.hear(patience=patience)

    def hear(self, *, patience: float = PATIENCE) -> dict[str, Any]:
        """Waits for one answer. Raises `RigError` when the process ended or says nothing."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + patience
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            ready, _, _ = select.select([pipe], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise RigError(f"the {self._name} said nothing for {patience:.0f} s")
            part = os.read(pipe, 65536)
            if not part:
                raise RigError(f"the {self._name} ended:\n{tail(self._log)}")
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = orjson.loads(line)
        return answer


def tail(log: Path) -> str:
    """The end of a process's log, for an error's text."""
    return log.read_text(errors="replace")[-2000:].strip()


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time of a process tree so far, in seconds."""

    user: float
    system: float

    @property
    def total(self) -> float:
        """User and system time."""
        return self.user + self.system

    def since(self, earlier: "Usage") -> "Usage":
        """What was used after `earlier`."""
        return Usage(self.user - earlier.user, self.system - earlier.system)


def usage_of(tree: Sequence[psutil.Process]) -> Usage:
    """What the processes of a tree have used; exact to the kernel's 10 ms."""
    times = [process.cpu_times() for process in tree]
    return Usage(sum(t.user for t in times), sum(t.system for t in times))


def cpu_of(tree: Sequence[psutil.Process]) -> float:
    """CPU seconds that the processes of a tree have used, to the nanosecond."""
    # The clock of another process's CPU time, as clock_getcpuclockid(3) makes it.
    return sum(time.clock_gettime((~process.pid << 3) | 2) for process in tree)


def memory_of(tree: Sequence[psutil.Process]) -> int:
    """Proportional set size of a tree, in bytes: shared pages are counted once over all."""
    return sum(process.memory_full_info().pss for process in tree)


def tree_of(pid: int) -> list[psutil.Process]:
    """A process and its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def core_busy(core: int) -> float:
    """Seconds that a core has been busy so far, whoever used it."""
    times = psutil.cpu_times(percpu=True)[core]
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
