"""What a part of a run has recorded on its node, read behind a place."""

from contextlib import ExitStack
from dataclasses import dataclass

from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogReader
from app.coordinator.metrics.snapshots import MetricsReader
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import Cursor
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot, WatchJobResponse

#: Most lines, bytes and snapshots of one answer.
LINES = 1000
BYTES = 256 * 1024
SNAPSHOTS = 200


@dataclass(frozen=True, slots=True)
class Records:
    """Lines and snapshots behind a place. May be none."""

    epoch: str
    #: The number of the first line, if there are any, and the lines as a WatchJobResponse.
    first_line: int = 0
    lines: bytes = b""
    line_count: int = 0
    #: The same of the snapshots.
    first_snapshot: int = 0
    snapshots: bytes = b""
    snapshot_count: int = 0
    #: The number of the last one. Those between that are damaged on the disk are left out.
    last_snapshot: int = 0
    #: How the part ended, in JSON. Nothing follows.
    end: bytes = b""
    #: Lines up to this number are lost on the disk; 0 if none are.
    lost_through: int = 0

    @property
    def line_behind(self) -> int:
        """The number of the last line that this tells of; 0 if it tells of none."""
        if self.line_count:
            return self.first_line + self.line_count - 1
        return self.lost_through

    @property
    def snapshot_behind(self) -> int:
        """The same of the snapshots."""
        return self.last_snapshot if self.snapshot_count else 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is told by them."""
        return not (self.line_count or self.snapshot_count or self.end or self.lost_through)


class RecordsReader:
    """Reads the records of one job on this node, whose files it holds open. Blocks shortly; for
    one caller at a time. Close it."""

    def __init__(self, job: JobDir) -> None:
        """Raises OSError."""
        with ExitStack() as resources:
            self._log = resources.enter_context(LogReader(job.log))
            self._metrics = resources.enter_context(MetricsReader(job.metrics))
            self._resources = resources.pop_all()
        self._lines = Cursor()
        self._snapshots = Cursor()

    @property
    def epoch(self) -> str:
        """That of the job's log on this node."""
        return self._log.epoch

    def close(self) -> None:
        """Close the files."""
        self._resources.close()

    def read(self, *, after_line: int, after_snapshot: int) -> Records:
        """Return what lies behind these numbers, up to the limits. Raises OSError."""
        if self._lines.number != after_line:
            self._lines = self._log.locate(after_line)
        if self._snapshots.number != after_snapshot:
            self._snapshots = self._metrics.locate(after_snapshot)
        lines = self._log.read_records(self._lines, limit=LINES, max_bytes=BYTES)
        self._lines = lines.cursor
        snapshots: list[MetricsSnapshot] = []
        if self._metrics.grew(self._snapshots):
            snapshots, self._snapshots = self._metrics.after(self._snapshots, limit=SNAPSHOTS)
        lost = lines.cursor.number if lines.cursor.number > after_line and not lines.count else 0
        return Records(
            epoch=self.epoch,
            first_line=lines.first if lines.count else 0,
            lines=logs.sent(lines),
            line_count=lines.count,
            first_snapshot=snapshots[0].sequence if snapshots else 0,
            snapshots=WatchJobResponse(metrics=snapshots).SerializeToString() if snapshots else b"",
            snapshot_count=len(snapshots),
            last_snapshot=snapshots[-1].sequence if snapshots else 0,
            lost_through=lost,
        )
