"""A job's metrics: what its process reports, as numbered snapshots.

Snapshots that are damaged on the disk are left out wherever they are read.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from app.coordinator.jobs.model import Progress, bounded
from app.coordinator.metrics.blocks import BlockWriter
from app.coordinator.metrics.line import count_of
from app.coordinator.storage import journal
from app.coordinator.storage.journal import JournalReader
from app.coordinator.storage.journal_writer import JournalWriter
from app.coordinator.storage.records import Cursor, RecordKind, Slice
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot, WatchJobResponse

#: The journal of the snapshots within the metrics' directory.
SNAPSHOTS: Final = "snapshots"
#: The reserved number by which a process says that no step has come for so many seconds.
STALLED: Final = "stalled_seconds"
_LONGEST_STALL: Final = 1e9
_PAGE: Final = 4096


def _decoded(payload: bytes) -> MetricsSnapshot | None:
    """A snapshot as it was written; None if it is damaged."""
    try:
        return MetricsSnapshot.FromString(payload)
    except DecodeError:
        return None


#: The records: the field `metrics` of WatchJobResponse, each with its sequence as its number.
_KIND: Final = RecordKind(0x1A, lambda payload: _decoded(payload) is not None)


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


def stalled_seconds(snapshot: MetricsSnapshot, *, since: int) -> float:
    """Return the seconds without a step that a job's newest snapshot complains of; 0 if it does
    not, or is of a run before the one that began `since`, in microseconds since 1970."""
    seconds = snapshot.extra.get(STALLED, 0.0)
    if snapshot.timestamp.ToMicroseconds() < since or not 0 < seconds < _LONGEST_STALL:
        return 0.0
    return seconds


class MetricsWriter:
    """The one writer of a job's metrics: it gives the sequence numbers.

    Opening it cuts off what a crash left half-written, and adds the blocks
    that are missing.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as resources:
            self._journal = resources.enter_context(
                closing(JournalWriter(directory / SNAPSHOTS, kind=_KIND, class_of=lambda _: 0))
            )
            self._blocks = resources.enter_context(
                closing(BlockWriter(directory, snapshots=self._journal.number))
            )
            with MetricsReader(directory) as reader:
                for snapshot, at in reader.places(after=self._blocks.number):
                    self._blocks.add(snapshot, at)
            self._resources = resources.pop_all()

    @property
    def last_sequence(self) -> int:
        """The sequence number of the newest snapshot."""
        return self._journal.number

    @property
    def size_bytes(self) -> int:
        """How long the metrics are, without what is told of their blocks."""
        return self._journal.size_bytes

    def append(self, snapshots: list[MetricsSnapshot]) -> None:
        """Number the snapshots and append them: all of them, or none (OSError)."""
        for sequence, snapshot in enumerate(snapshots, self._journal.number + 1):
            snapshot.sequence = sequence
        places = self._journal.append([(0, each.SerializeToString()) for each in snapshots])
        for snapshot, at in zip(snapshots, places, strict=True):
            self._blocks.add(snapshot, at)

    def close(self) -> None:
        """Close the files."""
        self._resources.close()


def _placed(piece: Slice) -> Iterator[tuple[MetricsSnapshot, int]]:
    """The snapshots of a slice, and how many bytes of the file lie before each."""
    try:
        snapshots: Sequence[MetricsSnapshot | None] = WatchJobResponse.FromString(
            piece.data
        ).metrics
    except DecodeError:
        snapshots = [_decoded(payload) for payload in piece.payloads()]
    places = zip(snapshots, (0, *piece.ends), strict=False)
    for sequence, (snapshot, start) in enumerate(places, piece.first):
        if snapshot is not None and snapshot.sequence == sequence:
            yield snapshot, piece.position + start


def _snapshots(piece: Slice) -> list[MetricsSnapshot]:
    return [snapshot for snapshot, _ in _placed(piece)]


def snapshots_path(directory: Path) -> str:
    """Where the snapshots of a job's metrics are, for `read_behind`."""
    return str(directory / SNAPSHOTS)


def read_behind(
    path: str, cursor: Cursor, *, limit: int = _PAGE
) -> tuple[list[MetricsSnapshot], Cursor]:
    """At most `limit` snapshots behind `cursor`, by one descriptor that is not kept.

    Raises OSError.
    """
    piece = journal.read_behind(path, cursor, kind=_KIND, limit=limit)
    return _snapshots(piece), piece.cursor


#: Bytes that most snapshots have at most.
_LIKELY: Final = 256


class MetricsReader(JournalReader):
    """Reads a job's metrics while they are being written. A context manager."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / SNAPSHOTS, kind=_KIND)

    def after(self, cursor: Cursor, *, limit: int = _PAGE) -> tuple[list[MetricsSnapshot], Cursor]:
        """At most `limit` snapshots behind `cursor`."""
        piece = self.read(cursor, limit=limit)
        return _snapshots(piece), piece.cursor

    def places(self, *, after: int) -> Iterator[tuple[MetricsSnapshot, int]]:
        """The snapshots behind number `after`, and how many bytes lie before each."""
        cursor = self.locate(after)
        while (piece := self.read(cursor, limit=_PAGE)).count:
            for snapshot, place in _placed(piece):
                if snapshot.sequence > after:
                    yield snapshot, place
            cursor = piece.cursor

    def from_place(self, place: int, *, limit: int) -> Iterator[tuple[MetricsSnapshot, int]]:
        """Snapshots from the one on before which `place` bytes lie, and their places: at most
        `limit`, fewer of very large ones; nothing if it is damaged."""
        return _placed(self.piece(place, limit=limit, size=limit * _LIKELY))

    def at(self, place: int) -> MetricsSnapshot | None:
        """The snapshot before which `place` bytes lie; None if it is damaged."""
        try:
            return WatchJobResponse.FromString(self.record(place)).metrics[0]
        except (EOFError, DecodeError):
            return None

    def newest(self) -> MetricsSnapshot | None:
        """The newest snapshot."""
        snapshots, _ = self.after(self.locate(self.last() - 1))
        return snapshots[-1] if snapshots else None
