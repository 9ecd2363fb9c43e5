"""The process that owns one run: `python -m app.coordinator.engines.local.runner`.

Its run's directory is in the variable SCAIMIND_RUN_DIRECTORY.

It has a sandbox made for the training processes, stamps their lines into the
job's log and their numbers into the job's metrics, passes signals on, and leaves
`exit.json` behind when nothing of the run is left. It does not need the
coordinator: it survives its crash, and goes on without it.

SIGTERM asks the training processes to save a checkpoint and leave; after a
grace time everything in the sandbox is killed. SIGUSR1 kills it at once. When
one of several ranks fails, the others are killed: they would wait for it.
"""

import os
import resource
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from app.coordinator.engines.local.run_orders import is_replaced
from app.coordinator.engines.local.runner.supervision import NotEnded, Runner
from app.coordinator.engines.local.runner_protocol import RUN_VARIABLE, RUNNER_SIGNALS, leave_exit
from app.coordinator.failures import FailureBackoff, is_disk_full, is_passing
from app.coordinator.isolation.kernel import become_subreaper
from app.coordinator.storage.job_directory import RunDir
from app.coordinator.storage.locks import locked
from app.files.json_files import read_json
from app.undumpable import make_undumpable

#: Seconds to wait for the lock; its holder is about to let go of it.
_LOCK_PATIENCE: Final = 30
#: Descriptors that the runner may have open: four for each rank, and its own.
_DESCRIPTORS: Final = 4096


def _raise_limit() -> None:
    """Allow the descriptors that the outputs of many ranks take; the ranks have limits of their
    own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_DESCRIPTORS, hard), hard))


def main() -> int:
    """Carry out the run."""
    make_undumpable()
    # What a first process that was killed leaves behind is this process's then.
    become_subreaper()
    _raise_limit()
    directory = RunDir(Path(os.environ[RUN_VARIABLE]))
    # Its default action ends the process: another runner holds the lock and lives.
    signal.alarm(_LOCK_PATIENCE)
    with locked(directory.job.lock, wait=True):
        signal.alarm(0)
        spec = read_json(directory.spec)
        if spec is None or directory.exit.exists() or is_replaced(spec):
            return 0
        try:
            _carry_out(directory, spec)
        except NotEnded:
            # Without an `exit.json` the coordinator ends the run, and tells its operators.
            return 1
    return 0


def _carry_out(directory: RunDir, spec: dict[str, Any]) -> None:
    """Carry the run out, or leave why it could not be. Raises NotEnded."""
    backoff = FailureBackoff()
    while True:
        with ExitStack() as resources:
            try:
                runner = Runner(directory, spec, resources)
            except OSError as error:
                reason = error
            else:
                runner.run()
                return
        asked = None
        if is_disk_full(reason):
            asked = signal.sigtimedwait(RUNNER_SIGNALS, backoff.after_failure())
            if asked is None:
                continue
        end = {
            "exit_code": None,
            "stopped": asked is not None,
            "failure": f"The job's log could not be opened: {reason.strerror}.",
            "transient": is_passing(reason),
        }
        leave_exit(directory, end)
        return


if __name__ == "__main__":
    sys.exit(main())
