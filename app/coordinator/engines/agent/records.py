"""What a part of a run has recorded on its node, read behind a place."""

from dataclasses import dataclass

from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogReader
from app.coordinator.metrics import snapshots as metrics
from app.coordinator.metrics.snapshots import MetricsReader
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import Cursor
from generated.mindcoordinator.v1.watch_pb2 import WatchJobResponse

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
        return self.first_snapshot + self.snapshot_count - 1 if self.snapshot_count else 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is told by them."""
        return not (self.line_count or self.snapshot_count or self.end or self.lost_through)


class RecordsReader:
    """Reads the records of one job on this node. Blocks shortly; for one caller at a time."""

    def __init__(self, job: JobDir) -> None:
        """Raises OSError."""
        self._job = job
        self.epoch = logs.read_epoch(job.log)
        self._lines = Cursor()
        self._snapshots = Cursor()

    def read(self, *, after_line: int, after_snapshot: int) -> Records:
        """Return what lies behind these numbers, up to the limits. Raises OSError."""
        if self._lines.number != after_line:
            with LogReader(self._job.log) as log:
                self._lines = log.locate(after_line)
        if self._snapshots.number != after_snapshot:
            with MetricsReader(self._job.metrics) as reader:
                self._snapshots = reader.locate(after_snapshot)
        page = logs.read_behind(
            logs.entries_path(self._job.log), self._lines, limit=LINES, max_bytes=BYTES
        )
        snapshots, at = metrics.read_behind(
            metrics.snapshots_path(self._job.metrics), self._snapshots, limit=SNAPSHOTS
        )
        self._lines, self._snapshots = page.cursor, at
        lost = page.cursor.number if page.cursor.number > after_line and not page.entries else 0
        return Records(
            epoch=self.epoch,
            first_line=page.entries[0].offset if page.entries else 0,
            lines=WatchJobResponse(logs=page.entries).SerializeToString(),
            line_count=len(page.entries),
            first_snapshot=snapshots[0].sequence if snapshots else 0,
            snapshots=WatchJobResponse(metrics=snapshots).SerializeToString(),
            snapshot_count=len(snapshots),
            lost_through=lost,
        )
