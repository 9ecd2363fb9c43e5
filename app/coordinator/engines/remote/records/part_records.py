"""What one part of a run has recorded, on its way into the job's log and metrics."""

from collections.abc import Sequence

import orjson

from app.coordinator.engines.remote.records.merging import MergedRecords
from app.coordinator.scheduling.transitions import RunEnd
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRecords
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, WatchJobResponse


class PartRecords:
    """Takes over the messages of one part. Blocks; one call at a time."""

    def __init__(self, records: MergedRecords, number: int, node_id: str) -> None:
        """`number` is the part's among those of its run."""
        self._records = records
        self._number = number
        self.node_id = node_id
        #: Of the node's records, as far as it is known.
        self.epoch = ""
        #: How the part ended, once that is known.
        self.end: RunEnd | None = None

    @property
    def taken(self) -> tuple[int, int]:
        """The numbers of the last line and of the last snapshot that were taken over."""
        return self._records.taken(self._number)

    def take(self, message: RunRecords) -> None:
        """Take a message over; done again after a failure, nothing is taken twice. Raises
        OSError."""
        self.epoch = message.epoch
        if message.lost_through:
            self._say_lost(message.lost_through)
        if message.lines:
            lines = WatchJobResponse.FromString(message.lines).logs
            self._take_lines(lines[max(self.taken[0] + 1 - message.first_line, 0) :])
        if message.snapshots:
            snapshot = self.taken[1]
            snapshots = WatchJobResponse.FromString(message.snapshots).metrics
            new = snapshots[max(snapshot + 1 - message.first_snapshot, 0) :]
            if new:
                self._records.take_snapshots(self._number, new[0].sequence, new)
        if message.end:
            self.end = RunEnd(**orjson.loads(message.end))

    def _take_lines(self, lines: Sequence[LogEntry]) -> None:
        if lines:
            first = lines[0].offset
            self._say_lost(first - 1)
            self._records.take_lines(self._number, first, lines)

    def _say_lost(self, through: int) -> None:
        """Say that the lines up to this number are lost which were not taken over, if any are."""
        behind = self.taken[0] + 1
        if through >= behind:
            self._records.take_gap(
                self._number,
                through,
                f"Gap: lines {behind} to {through} of node {self.node_id} are damaged on its disk.",
            )
