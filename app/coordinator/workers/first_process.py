"""The first process of a worker: `python -m app.coordinator.workers.first_process MODULE ...`.

It forks the process that does the work, and ends that with all that it started:
when the work is done, on SIGTERM, and when whoever started it is gone. It reads
no content, and is not confined, so that nothing in the worker can signal it
(Landlock, Linux 6.12). Its exit status, or its signal, is the worker's.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from typing import Final, NoReturn

from app.coordinator.isolation.system_paths import Confinement
from app.coordinator.workers.network import forbid_network
from app.coordinator.workers.rules import OWN_CODE, RULES_VARIABLE, Rules

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_NICE: Final = 10
#: Seconds between two rounds of killing.
_PAUSE: Final = 0.002
_SIGNALS: Final = (signal.SIGTERM, signal.SIGCHLD)

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run the worker to its end."""
    told = json.loads(os.environ.pop(RULES_VARIABLE))
    parent = told.pop("parent")
    # Until it can answer they wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        return 1
    own = os.getpid()
    worker = os.fork()
    if worker == 0:
        _become(own, Rules.read(json.dumps(told)), sys.argv[1], sys.argv[2:])
    try:
        status = _wait(worker)
    finally:
        _end_all()
    if status is None:
        return 1
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # Whoever waits for this process is to see the same.
        with suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
        os.kill(own, -code)
        return 128 - code
    return code


def _wait(worker: int) -> int | None:
    """Return the worker's wait status; None if it is to be ended before."""
    while True:
        if signal.sigwait(_SIGNALS) == signal.SIGTERM:
            return None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                break
            if pid == worker:
                return status


def _end_all() -> None:
    """Kill and reap every descendant, until none is left: they all come back to a subreaper."""
    while True:
        for pid in _children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_PAUSE)


def _children() -> list[int]:
    own = os.getpid()
    with open(f"/proc/self/task/{own}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def _become(parent: int, rules: Rules, module: str, arguments: list[str]) -> NoReturn:
    """Confine this process, and do the work in it."""
    status = 1
    try:
        # Its own code is trusted: it is loaded before, with the right to read it.
        work = importlib.import_module(module).work
        confine(rules)
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        status = work(*arguments)
        sys.stdout.flush()
    except BaseException:
        # Whatever it is, it ends here: this process must not come back from the fork.
        traceback.print_exc(limit=-20)
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


def confine(rules: Rules) -> None:
    """Bound this process, which has one thread, for good. Raises OSError.

    Afterwards it has no network, no capability, and nothing of the file system
    but what the rules name; it dies with its parent.
    """
    os.nice(_NICE)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, rules.memory_bytes),
        (resource.RLIMIT_FSIZE, rules.file_bytes),
        (resource.RLIMIT_NOFILE, rules.open_files),
        (resource.RLIMIT_CPU, rules.cpu_seconds),
    ):
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))
    with Confinement(readable=(*rules.readable, *OWN_CODE), writable=rules.writable) as confinement:
        forbid_network()
        confinement.enter()
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
