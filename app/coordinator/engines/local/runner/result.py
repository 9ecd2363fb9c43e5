"""How a run ended, as far as its runner knows."""

import signal
from collections.abc import Callable
from typing import Any

from app.coordinator.engines.local.runner.process import TrainingProcess
from app.coordinator.isolation.sandbox import Report


class RunResult:
    """What has become of a run's processes, and why the run failed, if it did."""

    def __init__(self) -> None:
        #: By rank.
        self.processes: list[TrainingProcess] = []
        #: The first process of the sandbox is gone, and everything that was started.
        self.over = False
        #: The run was asked to stop.
        self.stopped = False
        #: Why the run could not be carried out, whatever its processes did; empty otherwise.
        self.failure = ""
        #: The failure may not happen again.
        self.transient = False
        #: The first process that failed.
        self.failed: TrainingProcess | None = None

    @property
    def living(self) -> bool:
        """Whether a process has not ended."""
        return any(process.exit_code is None for process in self.processes)

    @property
    def must_be_killed(self) -> bool:
        """Whether what still lives has no reason to go on. It was not asked to stop."""
        return (self.failed is not None or bool(self.failure)) and not self.stopped

    def fail(self, reason: str, *, transient: bool = False) -> None:
        """Record why the run failed."""
        self.failure = reason
        self.transient = transient

    def add(self, report: Report, *, overuse: Callable[[], str]) -> None:
        """Record what the sandbox's first process reported.

        `overuse` says by what resource the run exceeded its limits; the kernel may have ended
        it before the runner saw that.
        """
        for number, code in report.ended.items():
            process = self.processes[number]
            process.exit_code = code
            if code == -signal.SIGKILL and not self.stopped and (over := overuse()):
                self.failure = self.failure or f"The run {over}."
            if code and self.failed is None:
                self.failed = process
        if report.error and not self.failure:
            self.failure = f"The training process could not be started: {report.error}."
        if report.over:
            self.over = True
            if self.living and not self.failure:
                if over := overuse():
                    self.fail(f"The run {over}.")
                else:
                    # For memory, most likely; nothing of the run is left.
                    self.fail("The first process of the run's sandbox was killed.", transient=True)

    def add_loss(self, obstacle: str) -> None:
        """Record that the end of the log or of the metrics could not be written."""
        self.transient = self.transient or not self.failure
        lost = f"The end of the log or metrics could not be written: {obstacle}."
        self.failure = f"{self.failure} {lost}".lstrip()

    def exit_line(self) -> tuple[str, bool] | None:
        """Return the line for the log about how the processes ended, and whether it is a warning.

        None if a failure of the run says it already, or nothing was started.
        """
        ended = self._decisive()
        if ended is None or self.failure:
            return None
        code = ended.exit_code
        several = len(self.processes) > 1
        who = f"Rank {ended.number}" if several else "The training process"
        if code is not None and code < 0:
            return f"{who} was ended by signal {-code} ({signal.strsignal(-code)}).", True
        if self.failed is None and several:
            return "All ranks exited with status 0.", False
        return f"{who} exited with status {code}.", code != 0

    def as_json(self) -> dict[str, Any]:
        """Return the content of `exit.json`."""
        ended = self._decisive()
        return {
            "exit_code": ended.exit_code if ended is not None else None,
            "stopped": self.stopped,
            "failure": self.failure,
            "transient": self.transient,
            "last_words": ended.last_words if ended is not None else "",
        }

    def _decisive(self) -> TrainingProcess | None:
        """Return the process whose end is the run's."""
        return self.failed or (self.processes[0] if self.processes else None)
