"""A job's log and metrics while its run is on other machines: made of what the nodes record.

Offsets are dense over the streams of all nodes; each line keeps its rank, its
node and its time. Within one stream the order is that of the node.
"""

import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Final

from app.coordinator.engines.local.runner.recording import OWN, RecordBounds
from app.coordinator.engines.remote.records.marks import LINES, SNAPSHOTS, Mark, MarkFile
from app.coordinator.logs.log import LogWriter
from app.coordinator.logs.run_starts import note_run
from app.coordinator.metrics.snapshots import MetricsWriter
from app.coordinator.resources.resource_watch import in_words
from app.coordinator.storage.job_directory import RunDir
from app.coordinator.storage.locks import locked
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel, MetricsSnapshot

#: By kind: what is left out, of which records, by which setting, and their verb.
_BOUNDED: Final = {
    LINES: ("lines", "log", "job_log_bytes", "has"),
    SNAPSHOTS: ("snapshots", "metrics", "job_metrics_bytes", "have"),
}
#: The source of a run's first lines, which come from no node.
_ANNOUNCEMENT: Final = 0xFFFF


class MergedRecords:
    """The one writer of a job's records while its run goes on. Blocks; one call at a time."""

    def __init__(self, run: RunDir, node_id: str, *, bounds: RecordBounds) -> None:
        """Wait until nobody else writes, and take up what was taken over. Raises OSError.

        The coordinator's own lines have `node_id`, of the run's first node. Behind
        the bounds, what the run's processes write is counted and left out.
        """
        self._node_id = node_id
        self._bounds = bounds
        with ExitStack() as resources:
            resources.enter_context(locked(run.job.lock, wait=True))
            self._log = resources.enter_context(closing(LogWriter(run.job.log)))
            self._metrics = resources.enter_context(closing(MetricsWriter(run.job.metrics)))
            ends = {LINES: self._log.last_offset, SNAPSHOTS: self._metrics.last_sequence}
            self._marks = resources.enter_context(closing(MarkFile(run.taken, ends=ends)))
            if not self._marks.size:
                note_run(run.job.log, self._log.last_offset + 1)
            self._resources = resources.pop_all()

    def close(self) -> None:
        """Close the files, and let others write."""
        self._resources.close()

    def taken(self, source: int) -> tuple[int, int]:
        """The numbers of the last line and the last snapshot of a source that were taken over."""
        taken = self._marks.taken
        return taken.get((LINES, source), 0), taken.get((SNAPSHOTS, source), 0)

    def take_lines(self, source: int, first: int, entries: Sequence[LogEntry]) -> None:
        """Take lines over that a node has recorded, or leave them out. After an OSError, take those
        again that `taken` does not have. `first` is the number of the first there."""
        for own, group in itertools.groupby(entries, lambda entry: entry.source == OWN):
            lines = list(group)
            if own or not (self._bounds.log and self._log.size_bytes >= self._bounds.log):
                self.add_lines(source, first, lines)
            else:
                self._leave_out(LINES, source, first, len(lines))
            first += len(lines)

    def take_snapshots(self, source: int, first: int, snapshots: Sequence[MetricsSnapshot]) -> None:
        """The same of snapshots."""
        if self._bounds.metrics and self._metrics.size_bytes >= self._bounds.metrics:
            self._leave_out(SNAPSHOTS, source, first, len(snapshots))
        else:
            self.add_snapshots(source, first, snapshots)

    def say_what_was_left_out(self) -> None:
        """Say how much of the run that is. Raises OSError."""
        for kind, count in self._marks.left_out.items():
            what, where, setting, _ = _BOUNDED[kind]
            self.say(f"{count} {what} of this run were left out of the job's {where} ({setting}).")

    def _leave_out(self, kind: int, source: int, first: int, count: int) -> None:
        known = self._marks.left_out[kind]
        self._marks.leaving_out(kind, source, count, first=first)
        if known:
            return
        what, where, setting, verb = _BOUNDED[kind]
        used, bound = (
            (self._log.size_bytes, self._bounds.log)
            if kind == LINES
            else (self._metrics.size_bytes, self._bounds.metrics)
        )
        self.say(
            f"The job's {where} {verb} {in_words(used, bound)} allowed ({setting}): later {what}"
            " are left out.",
            warning=True,
        )

    def add_lines(self, source: int, first: int, entries: Sequence[LogEntry]) -> None:
        """Take lines over, all or none (OSError). `first` is the number of the first there."""
        mark = Mark(LINES, source, len(entries), self._log.last_offset, first)
        self._marks.taking(mark, lambda: self._log.append(list(entries)))

    def add_snapshots(self, source: int, first: int, snapshots: Sequence[MetricsSnapshot]) -> None:
        """The same of snapshots."""
        mark = Mark(SNAPSHOTS, source, len(snapshots), self._metrics.last_sequence, first)
        self._marks.taking(mark, lambda: self._metrics.append(list(snapshots)))

    def take_gap(self, source: int, through: int, text: str) -> None:
        """Take a line over in place of those up to the number `through` that are lost. Raises
        OSError."""
        self.add_lines(source, through, [self._own_line(text, warning=True)])

    def announce(self, texts: Sequence[str]) -> None:
        """Begin with lines of the coordinator's own, unless that was done. The first is no
        warning."""
        if texts and not self.taken(_ANNOUNCEMENT)[0]:
            lines = [
                self._own_line(text, warning=bool(number)) for number, text in enumerate(texts)
            ]
            self.add_lines(_ANNOUNCEMENT, 1, lines)

    def say(self, text: str, *, warning: bool = False) -> None:
        """Add a line of the coordinator's own. Raises OSError."""
        self._log.append([self._own_line(text, warning=warning)])

    def _own_line(self, text: str, *, warning: bool) -> LogEntry:
        entry = LogEntry(
            level=LogLevel.LOG_LEVEL_WARNING if warning else LogLevel.LOG_LEVEL_INFO,
            message=text,
            source=OWN,
            node_id=self._node_id,
        )
        entry.timestamp.FromNanoseconds(time.time_ns())
        return entry
