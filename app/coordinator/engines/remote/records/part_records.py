"""What one part of a run has recorded, on its way into the job's log and metrics."""

import itertools
from collections.abc import Sequence

from app.coordinator.engines.remote.records.merging import MergedRecords
from app.coordinator.engines.remote.records.received import (
    LinesClaimed,
    ReceivedRecords,
    RecordOrder,
    received,
)
from app.coordinator.scheduling.transitions import RunEnd
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRecords
from generated.mindcoordinator.v1.watch_pb2 import LogEntry


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
        #: Up to which line the node has said once that lines are lost; 0 if it has not.
        self._claim = 0

    @property
    def taken(self) -> tuple[int, int]:
        """The numbers of the last line and of the last snapshot that were taken over."""
        return self._records.taken(self._number)

    def order(self) -> RecordOrder:
        """Return what checks the messages of a new connection, behind what was taken over."""
        line, snapshot = self.taken
        return RecordOrder(
            epoch=self.epoch, after_line=line, after_snapshot=snapshot, claim=self._claim
        )

    def received(self, message: RunRecords, order: RecordOrder) -> ReceivedRecords:
        """Return what a message of a connection has, to be taken over. Raises BadMessage, and
        CannotLaunch if the node has other records of the part than before."""
        records = received(message, node_id=self.node_id)
        try:
            order.check(records)
        except LinesClaimed as claimed:
            self._claim = claimed.through
            raise
        self._claim = 0
        return records

    def take(self, message: RunRecords) -> None:
        """Take a message over by itself, as `take_received`. Raises BadMessage, OSError."""
        self.take_received(received(message, node_id=self.node_id))

    def take_received(self, records: ReceivedRecords) -> None:
        """Take records over; done again after a failure, nothing is taken twice. Raises
        OSError."""
        self.epoch = records.epoch
        if records.lost_through:
            self._say_lost(records.lost_through)
        if records.lines:
            known = max(self.taken[0] + 1 - records.first_line, 0)
            self._take_lines(records.first_line + known, records.lines[known:])
        self._take_snapshots(records)
        if records.end is not None:
            self.end = records.end

    def _take_lines(self, first: int, lines: Sequence[LogEntry]) -> None:
        if lines:
            self._say_lost(first - 1)
            self._records.take_lines(self._number, first, lines)

    def _take_snapshots(self, records: ReceivedRecords) -> None:
        # Those between them are damaged on the node's disk. Each group is dense.
        pairs = zip(records.sequences, records.snapshots, strict=True)
        new = [each for each in pairs if each[0] > self.taken[1]]
        for _, group in itertools.groupby(enumerate(new), lambda each: each[1][0] - each[0]):
            dense = [each for _, each in group]
            self._records.take_snapshots(self._number, dense[0][0], [each for _, each in dense])

    def _say_lost(self, through: int) -> None:
        """Say that the lines up to this number are lost which were not taken over, if any are."""
        behind = self.taken[0] + 1
        if through >= behind:
            self._records.take_gap(
                self._number,
                through,
                f"Gap: lines {behind} to {through} of node {self.node_id} are damaged on its disk.",
            )
