"""A job's metrics: what its process reports, as numbered snapshots."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot, WatchJobResponse

from .journal import Cursor, JournalReader
from .journal_writer import JournalWriter
from .metrics_blocks import BlockWriter
from .records import Progress

#: The field `metrics` of WatchJobResponse, length-delimited.
TAG: Final = 0x1A
#: The journal of the snapshots within the metrics' directory.
SNAPSHOTS: Final = "snapshots"
_PAGE: Final = 4096
_INT64: Final = 2**63
_MAX_NAMES: Final = 256
_MAX_NAME: Final = 128

_DOUBLES: Final = (
    "epoch",
    "loss",
    "learning_rate",
    "grad_norm",
    "samples_per_second",
    "tokens_per_second",
    "gpu_utilization",
)
_OTHER_NAMES: Final = {"lr": "learning_rate", "train_loss": "loss"}


class BadMetrics(Exception):
    """A line of the metrics file that is no snapshot; the message says why."""


def parse_snapshot(raw: bytes) -> MetricsSnapshot:
    """A line of a metrics file: a JSON object with `step` and any numbers.

    Names that begin with `eval_` are evaluation metrics, other names that the
    contract does not know are kept under `extra`; what is no number is left
    out. NaN and infinities are numbers. Raises BadMetrics.
    """
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise BadMetrics(f"it is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise BadMetrics("it is not a JSON object")
    step = value.pop("step", None)
    if not _is_number(step) or not math.isfinite(step) or not -_INT64 <= step < _INT64:
        raise BadMetrics("it has no number 'step'")
    snapshot = MetricsSnapshot(step=int(step))
    for name, number in list(value.items())[:_MAX_NAMES]:
        if not _is_number(number):
            continue
        known = _OTHER_NAMES.get(name, name)
        try:
            if known in _DOUBLES:
                setattr(snapshot, known, float(number))
            elif known == "gpu_memory_bytes":
                snapshot.gpu_memory_bytes = int(number)
            elif name.startswith("eval_"):
                snapshot.eval_metrics[name[:_MAX_NAME]] = float(number)
            else:
                snapshot.extra[name[:_MAX_NAME]] = float(number)
        except (ValueError, OverflowError):
            raise BadMetrics(f"the number of {name[:_MAX_NAME]!r} is out of range") from None
    return snapshot


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def progress_of(snapshot: MetricsSnapshot, before: Progress) -> Progress:
    """How far a job is, by its newest snapshot; what that one leaves out stays as it was."""
    return Progress(
        step=snapshot.step,
        total_steps=int(snapshot.extra.get("total_steps", before.total_steps)),
        epoch=snapshot.epoch if snapshot.HasField("epoch") else before.epoch,
        loss=snapshot.loss if snapshot.HasField("loss") else before.loss,
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


class MetricsReader(JournalReader):
    """Reads a job's metrics while they are being written. A context manager."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / SNAPSHOTS, tag=TAG)

    def after(self, cursor: Cursor, *, limit: int = _PAGE) -> tuple[list[MetricsSnapshot], Cursor]:
        """At most `limit` snapshots behind `cursor`."""
        piece = self.read(cursor, limit=limit)
        return list(WatchJobResponse.FromString(piece.data).metrics), piece.cursor

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
