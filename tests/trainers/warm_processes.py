"""Processes of the trainers that start without importing their libraries anew."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.coordinator.trainers.program import OPTIONS
from tests.trainers import warm_start

#: Seconds that the end of a killed process may take to be noted.
_NOTED: Final = 60.0


class Process:
    """A process that another one has forked; end it."""

    def __init__(self, pid: int, status: Path) -> None:
        self._status = status
        # It may have ended already, and its number be another's before long.
        self._descriptor: int | None = None
        with suppress(ProcessLookupError):
            self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return what it returned, negative for a signal; None while it runs."""
        try:
            return int(self._status.read_text())
        except FileNotFoundError:
            return None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self._descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def end(self) -> None:
        """Kill it if it still runs, and wait until it is gone."""
        self.send_signal(signal.SIGKILL)
        limit = time.monotonic() + _NOTED
        while self.poll() is None:
            assert time.monotonic() < limit, "the end of a process was not noted"
            time.sleep(0.01)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class WarmStart:
    """A process that has the libraries imported, and forks those that run the launcher."""

    def __init__(self, python: Path, program: Path, launcher: Path, folder: Path) -> None:
        """`program` has the trainers' package; `folder` becomes this one's own."""
        self._folder = folder
        folder.mkdir()
        self._started = 0
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [python, *OPTIONS, warm_start.__file__, program, launcher],
                cwd=folder,
                env={
                    "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
                    "LANG": "C.UTF-8",
                    "OMP_NUM_THREADS": "1",
                    "HF_HUB_OFFLINE": "1",
                    "HOME": str(folder),
                    "TMPDIR": str(folder),
                    "CUDA_VISIBLE_DEVICES": "",
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def start(
        self, variables: Mapping[str, str], folder: Path, log: Path, hold_at: Sequence[str] = ()
    ) -> Process:
        """Start the launcher with these variables alone, in a folder, writing to a log.

        When it first prints one of the texts of `hold_at`, it stops until it gets SIGCONT.
        """
        self._started += 1
        status = self._folder / f"status-{self._started}"
        asked = {
            "variables": dict(variables),
            "folder": str(folder),
            "log": str(log),
            "status": str(status),
            "hold_at": [*hold_at],
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, (self._folder / "log").read_text()
        return Process(int(answer), status)

    def close(self) -> None:
        """End it, and what it has started."""
        # It ends at the end of its input.
        self._process.communicate(timeout=_NOTED)
