"""The first process of a run's sandbox: starts and reaps the ranks, and is the end of everything.

A program, see `programs`; its argument is the descriptor of its specification.
In namespaces it is process 1, so that the kernel ends whatever is left when it
exits. Without them it is a subreaper, and exits when no descendant is left.

It imports nothing of gRPC or protobuf, and little else: it costs each run its
memory. Two pipes join it to the runner. Orders come as single bytes; the end of
that pipe means that the runner is gone, and everything with it. Reports go back
as lines of JSON: `{"ready": true}`, `{"pids": [...]}`, `{"rank": 0, "status": -11}`
with minus the number of a signal, `{"error": "..."}`.
"""

import base64
import contextlib
import json
import os
import select
import signal
import sys
import time
from typing import Any, Final, NoReturn

from app.coordinator.isolation import kernel, landlock, limits
from app.coordinator.isolation.ending import processes, user_processes

#: Orders of the runner: start the ranks, SIGTERM to each of them, SIGKILL to everything.
BEGIN: Final = b"B"
ASK_TO_LEAVE: Final = b"T"
KILL: Final = b"K"

#: Seconds between two rounds of killing what forks away.
_PAUSE: Final = 0.002
#: Above the number of every descriptor that the runner hands over.
_DESCRIPTORS: Final = 4096
#: What Python ignores or the runner ignored: the ranks begin as any program does.
_DEFAULTS: Final = (
    *(signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT),
    *(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGUSR1),
)


class FirstProcess:
    """Owns the ranks of a run. One thread."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._orders: int = spec["orders"]
        self._reports: int = spec["reports"]
        #: Whether the kernel ends everything when this process exits.
        self._namespace: bool = spec["namespace"]
        #: The user id of the ranks, if it is not this process's.
        self._uid: int | None = spec["uid"]
        self._ranks: dict[int, int] = {}

    def run(self) -> int:
        """Start the ranks when that is ordered, and stay until all is over."""
        kernel.make_undumpable()
        if not self._namespace:
            kernel.become_subreaper()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        wakeup, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._report({"ready": True})
        if os.read(self._orders, 1) != BEGIN:
            return 0
        if self._start() and self._namespace:
            kernel.keep_capabilities(kernel.CAP_KILL if self._uid is not None else 0)
        while self._ranks:
            readable, _, _ = select.select([wakeup, self._orders], [], [])
            if wakeup in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(wakeup, 4096)
            self._reap()
            if self._orders in readable:
                order = os.read(self._orders, 1)
                if order == ASK_TO_LEAVE:
                    self._ask_to_leave()
                else:
                    # KILL, or nothing any more: the runner is gone.
                    self._end_ranks()
        self._end_all()
        return 0

    def _start(self) -> bool:
        """Start the ranks by a process that confines itself, and leaves them to this one.

        So they share one Landlock domain, and this process is outside of it:
        they may talk to each other, and can do nothing to it.
        """
        told, tell = os.pipe()
        holder = os.fork()
        if holder == 0:
            os.close(told)
            self._hold(tell)
        os.close(tell)
        with open(told, "rb") as file:
            pids = file.read().split()
        for rank in self._spec["ranks"]:
            os.close(rank["stdout"])
            os.close(rank["stderr"])
        os.waitpid(holder, 0)
        if pids:
            self._ranks = {int(pid): number for number, pid in enumerate(pids)}
            self._report({"pids": list(self._ranks)})
        return bool(pids)

    def _hold(self, tell: int) -> NoReturn:
        started: list[int] = []
        try:
            rlimits = dict(self._spec["limits"].get("rlimits", {}))
            # Not here: where all runs share a user, another could keep this one from its ranks.
            processes = {name: rlimits.pop(name) for name in ("NPROC",) if name in rlimits}
            limits.apply_limits({**self._spec["limits"], "rlimits": rlimits})
            with landlock.Confinement(**self._spec["confinement"]) as confinement:
                confinement.restrict()
            signal.set_wakeup_fd(-1)
            for default in _DEFAULTS:
                signal.signal(default, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            for number, rank in enumerate(self._spec["ranks"]):
                pid = os.fork()
                if pid == 0:
                    self._become(number, rank, processes)
                started.append(pid)
            os.write(tell, b" ".join(b"%d" % pid for pid in started))
        except (OSError, ValueError) as error:
            for pid in started:
                os.kill(pid, signal.SIGKILL)
            self._report({"error": _reason(error)})
        # What Python would do at its end belongs to the process that forked.
        os._exit(0)

    def _become(self, number: int, rank: dict[str, Any], rlimits: dict[str, int]) -> NoReturn:
        """Become a rank's program, which `rlimits` hold for besides those that hold already."""
        try:
            os.setsid()
            limits.apply_limits({"rlimits": rlimits})
            if self._uid is not None:
                os.setgroups([])
                os.setresgid(self._uid, self._uid, self._uid)
                os.setresuid(self._uid, self._uid, self._uid)
            kernel.keep_capabilities(0)
            os.chdir(rank["cwd"])
            for program in (self._spec["filter"], self._spec["limits"].get("filter", "")):
                if program:
                    kernel.install_filter(base64.b64decode(program))
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(rank["stdout"], 1)
            os.dup2(rank["stderr"], 2)
            # The report that it could not start still has to go out.
            reports = os.dup2(self._reports, 3, inheritable=False)
            os.closerange(4, _DESCRIPTORS)
            self._reports = reports
            os.execve(rank["argv"][0], rank["argv"], rank["env"])
        except (OSError, ValueError) as error:
            self._report({"error": _reason(error)})
        os._exit(127)

    def _ask_to_leave(self) -> None:
        for pid in self._ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _reap(self) -> bool:
        """Collect what has ended, and report the ranks among it; False if nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid in self._ranks:
                number = self._ranks.pop(pid)
                code = os.waitstatus_to_exitcode(status)
                self._report({"rank": number, "status": code})

    def _end_ranks(self) -> None:
        """Kill everything until no rank is left."""
        while self._ranks:
            self._kill()
            self._reap()
            time.sleep(_PAUSE)

    def _end_all(self) -> None:
        """Without a namespace, kill until no descendant is left."""
        if not self._namespace:
            self._reap()
            processes.end_descendants(self._uid)

    def _kill(self) -> None:
        if self._namespace:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        elif self._uid is not None:
            user_processes.kill_all_of(self._uid)
        else:
            processes.kill_descendants()

    def _report(self, value: dict[str, Any]) -> None:
        # A runner that is gone reads nothing; the end of its other pipe tells of it.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._reports, json.dumps(value).encode() + b"\n")


def _reason(error: Exception) -> str:
    return (error.strerror or "") if isinstance(error, OSError) else str(error)


def main() -> int:
    """Carry out the specification that the descriptor holds."""
    with open(int(sys.argv[1]), "rb") as file:
        spec = json.loads(file.read())
    for name in ("orders", "reports"):
        os.set_inheritable(spec[name], False)
    return FirstProcess(spec).run()
