"""A job's metrics: what its process reports, as numbered snapshots."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from app.coordinator.jobs.model import Progress, bounded
from app.coordinator.metrics.blocks import BlockWriter
from app.coordinator.metrics.line import count_of
from app.coordinator.storage import journal
from app.coordinator.storage.journal import Cursor, JournalReader, Slice
from app.coordinator.storage.journal_writer import JournalWriter
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot, WatchJobResponse

#: The field `metrics` of WatchJobResponse, length-delimited.
TAG: Final = 0x1A
#: The journal of the snapshots within the metrics' directory.
SNAPSHOTS: Final = "snapshots"
_PAGE: Final = 4096


def progress_of(snapshot: MetricsSnapshot, before: Progress) -> Progress:
    """How far a job is, by its newest snapshot; what that one leaves out stays as it was.

    All of it can be stored: coordinators before this one admitted snapshots with any numbers.
    """
    total = count_of(snapshot.extra.get("total_steps", before.total_steps))
    known_epoch = snapshot.HasField("epoch") and math.isfinite(snapshot.epoch)
    loss = snapshot.loss if snapshot.HasField("loss") else before.loss
    if loss is not None and math.isnan(loss):
        # One object, so that it equals itself from one look to the next.
        loss = math.nan
    return Progress(
        step=bounded(snapshot.step),
        total_steps=before.total_steps if total is None else total,
        epoch=snapshot.epoch if known_epoch else before.epoch,
        loss=loss,
    )


class MetricsWriter:
    """The one writer of a job's metrics: it gives the sequence numbers.

    Opening it cuts off what a crash left half-written, and adds the blocks
    that are missing.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._journal = JournalWriter(directory / SNAPSHOTS, tag=TAG, class_of=lambda _: 0)
        self._blocks = BlockWriter(directory, snapshots=self._journal.number)
        with MetricsReader(directory) as reader:
            for snapshot, at in reader.places(after=self._blocks.number):
                self._blocks.add(snapshot, at)

    @property
    def last_sequence(self) -> int:
        """The sequence number of the newest snapshot."""
        return self._journal.number

    @property
    def size_bytes(self) -> int:
        """How long the metrics are, without what is told of their blocks."""
        return self._journal.size_bytes

    def append(self, snapshots: list[MetricsSnapshot]) -> None:
        """Give the snapshots their numbers and append them: all of them, or none (OSError)."""
        for sequence, snapshot in enumerate(snapshots, self._journal.number + 1):
            snapshot.sequence = sequence
        places = self._journal.append([(0, each.SerializeToString()) for each in snapshots])
        for snapshot, at in zip(snapshots, places, strict=True):
            self._blocks.add(snapshot, at)

    def close(self) -> None:
        """Close the files."""
        self._journal.close()
        self._blocks.close()


def _snapshots(piece: Slice) -> list[MetricsSnapshot]:
    """The snapshots of a slice, without those that are damaged."""
    try:
        return list(WatchJobResponse.FromString(piece.data).metrics)
    except DecodeError:
        snapshots = []
        for payload in piece.payloads():
            with suppress(DecodeError):
                snapshots.append(MetricsSnapshot.FromString(payload))
        return snapshots


def snapshots_path(directory: Path) -> str:
    """Where the snapshots of a job's metrics are, for `read_behind`."""
    return str(directory / SNAPSHOTS)


def read_behind(
    path: str, cursor: Cursor, *, limit: int = _PAGE
) -> tuple[list[MetricsSnapshot], Cursor]:
    """At most `limit` snapshots behind `cursor`, by one descriptor that is not kept.

    Raises OSError.
    """
    piece = journal.read_behind(path, cursor, tag=TAG, limit=limit)
    return _snapshots(piece), piece.cursor


class MetricsReader(JournalReader):
    """Reads a job's metrics while they are being written. A context manager."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / SNAPSHOTS, tag=TAG)

    def after(self, cursor: Cursor, *, limit: int = _PAGE) -> tuple[list[MetricsSnapshot], Cursor]:
        """At most `limit` snapshots behind `cursor`."""
        piece = self.read(cursor, limit=limit)
        return _snapshots(piece), piece.cursor

    def places(self, *, after: int) -> Iterator[tuple[MetricsSnapshot, int]]:
        """The snapshots behind number `after`, and how many bytes lie before each."""
        cursor = self.locate(after)
        while (piece := self.read(cursor, limit=_PAGE)).count:
            snapshots = WatchJobResponse.FromString(piece.data).metrics
            for snapshot, start in zip(snapshots, (0, *piece.ends), strict=False):
                yield snapshot, cursor.position + start
            cursor = piece.cursor

    def at(self, place: int) -> MetricsSnapshot:
        """The snapshot before which `place` bytes lie."""
        return WatchJobResponse.FromString(self.record(place)).metrics[0]

    def newest(self) -> MetricsSnapshot | None:
        """The newest snapshot."""
        snapshots, _ = self.after(self.locate(self.last() - 1))
        return snapshots[-1] if snapshots else None
