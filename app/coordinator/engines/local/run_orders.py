"""For which term a runner is asked to stop: a signal cannot say it.

Whoever signals a runner leaves an empty file in the run's directory first:
`stop-<term>` for SIGTERM, `kill-<term>` for SIGUSR1. The runner obeys a signal if
there is its file of the newest term that is known in the data directory, or none of
any term: such a signal was sent by hand, by a coordinator of an earlier version, or
while the disk had no room for the file.
"""

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.coordinator.leadership.term_file import TermFile
from app.coordinator.storage.job_directory import RunDir

#: How the names of the files begin.
_ORDERS: Final = {signal.SIGTERM: "stop-", signal.SIGUSR1: "kill-"}


class RunOrders:
    """What a coordinator has a run do, for its term. Blocks shortly."""

    def __init__(self, directory: RunDir, term_file: TermFile, *, term: int) -> None:
        self._directory = directory
        self._term_file = term_file
        self._term = term

    def check(self) -> None:
        """Raise LeadershipLost if a higher term is known; OSError, ValueError."""
        self._term_file.check(self._term)

    def leave(self, number: signal.Signals) -> None:
        """Leave word that the run is to stop, for the signal that follows, one of RUNNER_SIGNALS.

        Raises LeadershipLost if a higher term is known; OSError, ValueError.
        """
        self.check()
        (self._directory.path / f"{_ORDERS[number]}{self._term}").touch(mode=0o600)


def is_replaced(spec: Mapping[str, Any]) -> bool:
    """Whether the coordinator that launched a run was replaced before its runner began.

    Raises OSError, ValueError.
    """
    return _newest(spec) > int(spec.get("term", 0))


def is_ordered(directory: RunDir, spec: Mapping[str, Any], number: int) -> bool:
    """Whether the coordinator that has signalled a run leads; also if nobody can say. `number` is
    one of RUNNER_SIGNALS."""
    try:
        order = _ORDERS[signal.Signals(number)]
        if any(directory.path.glob(f"{order}*")):
            return (directory.path / f"{order}{_newest(spec)}").exists()
    except (OSError, ValueError) as error:
        # It goes to `runner.err`. A run that nobody can stop is worse.
        sys.stderr.write(f"the newest term cannot be read: {error}\n")
    return True


def _newest(spec: Mapping[str, Any]) -> int:
    # A specification of an earlier version has no such file.
    path = spec.get("term_file")
    return TermFile(Path(path)).read() if path else 0
