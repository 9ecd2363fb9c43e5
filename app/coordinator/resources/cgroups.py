"""Memory of runs as the kernel limits it: a group of its own for each run (cgroup v2).

Groups can be made where the coordinator's own group is delegated to it: by
systemd (`Delegate=yes`), or in a container whose `/sys/fs/cgroup` can be
written. A group that gives its children controllers may have no processes of
its own, so the coordinator moves into a group below it, if it is alone there.
See the kernel's cgroup-v2.rst.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

MOUNTED: Final = Path("/sys/fs/cgroup")
_MIB: Final = 1024**2
#: The group that the coordinator and its runners are in.
_OWN: Final = "coordinator"
_RUN: Final = "run-"
_PROBE: Final = "probe"
#: What the probe is allowed, and what it takes.
_ALLOWED: Final = 32 * _MIB
_TAKEN: Final = 96 * _MIB
#: Waits for a line, then takes memory.
_TAKES: Final = f"input(); held = b'x' * {_TAKEN}"
_PATIENCE: Final = 10.0


class NoGroups(Exception):
    """Groups cannot be made here; the message says why."""


def find_parent(mounted: Path = MOUNTED, proc: Path = Path("/proc")) -> Path:
    """Return the group in which groups of runs can be made, after one was tried.

    Blocks shortly. Raises NoGroups.
    """
    own = own_group(mounted, proc)
    try:
        if "memory" not in _read(own / "cgroup.controllers").split():
            raise NoGroups("the coordinator's group has no memory controller (cgroup v2)")
        _share(own)
        _try(own)
    except OSError as error:
        raise NoGroups(f"no group can be made below the coordinator's: {error.strerror}") from None
    return own


def own_group(mounted: Path, proc: Path) -> Path:
    """The group that is the coordinator's: its own, or the one above after it has moved.

    Raises NoGroups.
    """
    with suppress(OSError):
        for line in _read(proc / "self" / "cgroup").splitlines():
            if line.startswith("0::/") and ".." not in line.split("/"):
                group = mounted / line.removeprefix("0::/")
                return group.parent if group.name == _OWN else group
    raise NoGroups("this kernel has no cgroup v2")


def _share(group: Path) -> None:
    """Let the groups below have the memory controller. Raises NoGroups, OSError."""
    if "memory" in _read(group / "cgroup.subtree_control").split():
        return
    mine = str(os.getpid())
    others = [pid for pid in _read(group / "cgroup.procs").split() if pid != mine]
    if not _is_delegated(group):
        raise NoGroups("systemd has not delegated the coordinator's group: Delegate=yes does")
    if others:
        raise NoGroups("the coordinator is not alone in its group (cgroup v2)")
    below = group / _OWN
    below.mkdir(exist_ok=True)
    _write(below / "cgroup.procs", mine)
    try:
        _write(group / "cgroup.subtree_control", "+memory")
    except OSError:
        _write(group / "cgroup.procs", mine)
        below.rmdir()
        raise


def _is_delegated(group: Path) -> bool:
    """Whether a group is ours to divide: one of systemd's is only if systemd says so."""
    if "INVOCATION_ID" not in os.environ:
        return True
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _try(parent: Path) -> None:
    """Check that a process is ended that takes more than its group may. Raises NoGroups,
    OSError."""
    # A coordinator that was killed may have left it.
    with suppress(OSError):
        (parent / _PROBE).rmdir()
    group = RunGroup(parent / _PROBE, memory=_ALLOWED)
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TAKES],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                group.enclose(process.pid)
                process.communicate(b"\n", timeout=_PATIENCE)
            except BaseException:
                process.kill()
                raise
        if process.returncode != -signal.SIGKILL or not group.killed():
            raise NoGroups("a group's memory.max does not hold")
    except subprocess.TimeoutExpired:
        raise NoGroups("a process that exceeds its group's memory.max goes on") from None
    finally:
        group.remove()


def run_group(parent: Path, job_id: str) -> Path:
    """Return where the group of a job's run is, after groups of runs that are over were removed."""
    with suppress(OSError):
        for entry in parent.iterdir():
            if entry.name.startswith(_RUN):
                # One that has processes stays.
                with suppress(OSError):
                    entry.rmdir()
    return parent / f"{_RUN}{job_id}"


class RunGroup:
    """The group of a run."""

    def __init__(self, path: Path, *, memory: int) -> None:
        """Make it; what is in it may use `memory` bytes, page cache that can be dropped apart.

        Raises OSError.
        """
        self._path = path
        path.mkdir(exist_ok=True)
        _write(path / "memory.max", str(memory))
        with suppress(FileNotFoundError):
            # There where the kernel can swap.
            _write(path / "memory.swap.max", "0")
        # The run is one: it makes no sense without one of its processes.
        _write(path / "memory.oom.group", "1")

    def enclose(self, pid: int) -> None:
        """Take a process in, and all that it starts from now on. Raises OSError."""
        _write(self._path / "cgroup.procs", str(pid))

    def killed(self) -> bool:
        """Whether the kernel has ended it for its memory."""
        with suppress(OSError):
            for line in _read(self._path / "memory.events").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count) > 0
        return False

    def remove(self) -> None:
        """Remove it, if nothing is in it any more."""
        with suppress(OSError):
            self._path.rmdir()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    # One write: what the kernel refuses is an error of it.
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
