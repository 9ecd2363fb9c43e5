"""Where a run's lines and numbers go: its job's log and metrics.

On a full disk nothing is lost and nothing is written twice: what could not be
written waits here, and the runner reads nothing on until it is written. What
waits is therefore no more than what is read at once.

A job's log and metrics have bounds. What comes behind them is counted and
left out; the coordinator's own lines are not.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from app.coordinator.failures import FailureBackoff, is_disk_full
from app.coordinator.logs.log import LogWriter
from app.coordinator.logs.new_entry import AnyEntry, NewEntry, numbered
from app.coordinator.logs.run_starts import note_run
from app.coordinator.metrics.snapshots import MetricsWriter
from app.coordinator.resources.resource_watch import in_words
from app.coordinator.storage.job_directory import JobDir
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, MetricsSnapshot

#: The source of lines that no process of the run wrote.
OWN: Final = "coordinator"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RecordBounds:
    """Bytes that a job's log and its metrics may have, all its runs together; 0 sets no bound."""

    log: int = 0
    metrics: int = 0
    #: Bytes of both that are kept elsewhere and count, too.
    log_before: int = 0
    metrics_before: int = 0

    @classmethod
    def of(cls, limits: dict[str, Any]) -> "RecordBounds":
        """Those in the section `limits` of a run's specification."""
        return cls(
            log=limits.get("log_bytes", 0),
            metrics=limits.get("metrics_bytes", 0),
            log_before=limits.get("log_bytes_before", 0),
            metrics_before=limits.get("metrics_bytes_before", 0),
        )


class Recorder:
    """Writes a job's log and metrics, and keeps what a full disk does not take.

    Raises OSError for every other failure to write.
    """

    def __init__(self, job: JobDir, bounds: RecordBounds) -> None:
        with ExitStack() as resources:
            self.log = resources.enter_context(closing(LogWriter(job.log)))
            self._metrics = resources.enter_context(closing(MetricsWriter(job.metrics)))
            self._resources = resources.pop_all()
        self._bounds = bounds
        self._log_directory = job.log
        #: The offset of the run's first line, until it is noted.
        self._begins: int | None = self.log.last_offset + 1
        self._lines: list[AnyEntry] = []
        self._snapshots: list[MetricsSnapshot] = []
        self._backoff = FailureBackoff()
        #: When it is tried again, on the monotonic clock; None if nothing waits.
        self.retry_at: float | None = None
        #: Why something waits: what the system said last.
        self.obstacle = ""
        self._lines_left_out = 0
        self._snapshots_left_out = 0

    @property
    def waits(self) -> bool:
        """Whether something is kept that could not be written."""
        return self.retry_at is not None

    @property
    def waiting_snapshots(self) -> bool:
        """Whether snapshots are among what is kept."""
        return bool(self._snapshots)

    @property
    def waiting_lines(self) -> bool:
        """Whether lines of the run's processes are among what is kept."""
        return any(isinstance(new, bytes) or new.entry.source != OWN for new in self._lines)

    def add_lines(self, entries: Sequence[LogEntry | AnyEntry]) -> str:
        """Write lines of the run's processes. Returns what is to be said of it, once in a run."""
        if not entries:
            return ""
        size = self.log.size_bytes + self._bounds.log_before
        if self._bounds.log and size >= self._bounds.log:
            first = not self._lines_left_out
            self._lines_left_out += len(entries)
            about = in_words(size, self._bounds.log)
            text = f"The job's log has {about} allowed (job_log_bytes): later lines are left out."
            return text if first else ""
        self._lines += (
            NewEntry(entry) if isinstance(entry, LogEntry) else entry for entry in entries
        )
        self.write()
        return ""

    def add_own_line(self, entry: LogEntry) -> None:
        """Write a line of the coordinator's."""
        self._lines.append(NewEntry(entry))
        self.write()

    def add_snapshots(self, snapshots: list[MetricsSnapshot]) -> str:
        """Write snapshots. Returns what is to be said of it, once in a run."""
        size = self._metrics.size_bytes + self._bounds.metrics_before
        if self._bounds.metrics and size >= self._bounds.metrics:
            first = not self._snapshots_left_out
            self._snapshots_left_out += len(snapshots)
            about = in_words(size, self._bounds.metrics)
            text = (
                f"The job's metrics have {about} allowed (job_metrics_bytes): later snapshots are"
                " left out."
            )
            return text if first else ""
        self._snapshots += snapshots
        self.write()
        return ""

    def left_out(self) -> list[str]:
        """How much was left out behind the bounds, in sentences."""
        counts = (
            (self._lines_left_out, "lines", "log", "job_log_bytes"),
            (self._snapshots_left_out, "snapshots", "metrics", "job_metrics_bytes"),
        )
        return [
            f"{count} {what} of this run were left out of the job's {where} ({setting})."
            for count, what, where, setting in counts
            if count
        ]

    def write(self) -> None:
        """Write what waits, unless that failed a moment ago."""
        if self.retry_at is not None and time.monotonic() < self.retry_at:
            return
        try:
            self._note_beginning()
            _append_what_fits(self._append_lines, self._lines)
            _append_what_fits(self._metrics.append, self._snapshots)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self.obstacle = error.strerror or str(error)
            self.retry_at = time.monotonic() + self._backoff.after_failure()
        else:
            self._backoff = FailureBackoff()
            self.retry_at = None

    def _note_beginning(self) -> None:
        """Write down where the run begins, before its first line."""
        if self._begins is not None:
            note_run(self._log_directory, self._begins)
            self._begins = None

    def _append_lines(self, lines: list[AnyEntry]) -> None:
        self.log.append(numbered(lines, after=self.log.last_offset))

    def close(self) -> None:
        """Close the files. What waits is lost."""
        self._resources.close()


def _append_what_fits(append: Callable[[list[_T]], None], items: list[_T]) -> None:
    """Append items and take them out of the list. `append` writes all that it is given, or none.

    Raises OSError; on a full disk only once the first item alone does not fit.
    """
    count = len(items)
    while items:
        try:
            append(items[:count])
        except OSError as error:
            if count == 1 or not is_disk_full(error):
                raise
            count = min(count, len(items)) // 2 or 1
        else:
            del items[:count]
