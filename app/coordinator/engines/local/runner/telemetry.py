"""A run's lines and metrics, on their way into its job's log and metrics."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from app.coordinator.cluster.gpus import GpuMeter
from app.coordinator.engines.local.notifications import NotificationSender
from app.coordinator.engines.local.run_notes import mark_said, read_notes
from app.coordinator.engines.local.runner.process import now, stamped
from app.coordinator.engines.local.runner.recording import OWN, RecordBounds, Recorder
from app.coordinator.failures import is_disk_full
from app.coordinator.logs.lines import Line
from app.coordinator.logs.new_entry import AnyEntry
from app.coordinator.metrics.metrics_file import MetricsFile
from app.coordinator.storage.job_directory import RunDir
from generated.mindcoordinator.v1.watch_pb2 import LogLevel

#: Seconds between two looks at the metrics file.
METRICS_INTERVAL: Final = 0.05


class RunTelemetry:
    """Writes both, and notifies the coordinator. Raises OSError, but not for a full disk."""

    def __init__(self, directory: RunDir, spec: dict[str, Any], resources: ExitStack) -> None:
        """`resources` closes what this opens. Raises OSError."""
        self._job_id: str = spec["job_id"]
        self._node_id: str = spec["node_id"]
        self._recorder = resources.enter_context(
            closing(Recorder(directory.job, RecordBounds.of(spec.get("limits", {}))))
        )
        self._metrics_file = MetricsFile(directory.metrics_file)
        self._gpus = resources.enter_context(closing(GpuMeter(spec["gpus"])))
        self._notifications = resources.enter_context(
            closing(NotificationSender(Path(spec["notify"])))
        )
        self._looked_at = 0.0
        self._directory = directory
        #: Bytes of the coordinator's notes that were said, and up to which that is written down.
        self._notes_at = self._notes_marked = 0

    @property
    def waits(self) -> bool:
        """Whether something could not be written yet."""
        return self._recorder.waits

    @property
    def retry_at(self) -> float:
        """When what waits is written again, on the monotonic clock."""
        return self._recorder.retry_at or 0.0

    @property
    def obstacle(self) -> str:
        """Why something waits."""
        return self._recorder.obstacle

    @property
    def has_lost(self) -> bool:
        """Whether something of the run waits. At its end, that is lost."""
        return self._recorder.waiting_lines or self._recorder.waiting_snapshots

    @property
    def due(self) -> float:
        """When the metrics file is read again, on the monotonic clock."""
        return self._looked_at + METRICS_INTERVAL

    def start_gpus(self) -> None:
        """Start to measure the run's GPUs."""
        self._gpus.start()

    def say(self, text: str, *, warning: bool = False) -> None:
        """Write a line of the coordinator's own."""
        level = LogLevel.LOG_LEVEL_WARNING if warning else LogLevel.LOG_LEVEL_INFO
        self._recorder.add_own_line(stamped(OWN, Line(level, text), node_id=self._node_id))
        self._notifications.send(self._job_id)

    def write(self, entries: Sequence[AnyEntry]) -> None:
        """Write lines of the run's processes, and what waited before."""
        if entries or self._recorder.waits:
            if problem := self._recorder.add_lines(entries):
                self.say(problem, warning=True)
            self._recorder.write()
            if not self._recorder.waits:
                self._notifications.send(self._job_id)

    def read_metrics(self, *, last: bool = False) -> None:
        """Take over what the metrics file has. With `last`, also an unfinished line."""
        self._looked_at = time.monotonic()
        if self._recorder.waits and not last:
            return
        for snapshots in self._metrics_file.batches(last=last):
            if snapshots:
                for snapshot in snapshots:
                    snapshot.timestamp.CopyFrom(now())
                    self._gpus.fill_in(snapshot)
                if problem := self._recorder.add_snapshots(snapshots):
                    self.say(problem, warning=True)
                self._notifications.send(self._job_id)
                if self._recorder.waiting_snapshots:
                    # The next call continues behind them.
                    break
        for problem in self._metrics_file.take_problems():
            self.say(problem, warning=True)

    def say_notes(self) -> None:
        """Say what the coordinator has left to be said, each line once."""
        if self._recorder.waits:
            return
        try:
            notes, size = read_notes(self._directory, after=self._notes_at)
            for note in notes:
                self.say(note)
            self._notes_at = size
            if self._notes_at > self._notes_marked and not self._recorder.waits:
                mark_said(self._directory, self._notes_at)
                self._notes_marked = self._notes_at
        except OSError as error:
            # What is not written down is looked for in the log, when the run is over.
            if not is_disk_full(error):
                raise

    def say_what_was_left_out(self) -> None:
        """Write how much exceeded the bounds of the log and of the metrics."""
        for text in self._recorder.left_out():
            self.say(text, warning=True)
