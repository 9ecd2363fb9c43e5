"""What is notable in each block of a job's metrics: curves are drawn of it without reading all.

A block is BLOCK snapshots, in the order of their sequence numbers. For each
whole block the journal `blocks`, beside the snapshots, has a record: where in
their file the first, the last, the lowest and the highest point of each
series are. Places are enough: a record is read in one piece from its place.

The snapshots are written first and are the truth. A block that is missing is
read from them, and the next writer adds it.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import orjson

from app.coordinator.storage.journal import MAX_PAYLOAD, Cursor, JournalReader, index_path
from app.coordinator.storage.journal_writer import JournalWriter
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot

BLOCK: Final = 128
#: Series that are told of in one block, those that appear first.
MAX_SERIES: Final = 288
_TAG: Final = 0x0A
_MAPS: Final = ("eval_metrics", "extra")
_NO_SERIES: Final = ("sequence", "step", "timestamp")


@dataclass(slots=True)
class Notable:
    """Where a series has its notable points: bytes before their snapshots.

    Of equal points the earliest is the lowest or the highest. Numbers that
    are not finite are neither; without a finite one both places are -1.
    """

    first: int
    last: int
    low: float = math.inf
    low_at: int = -1
    high: float = -math.inf
    high_at: int = -1

    def add(self, value: float, at: int) -> None:
        """Add the next point."""
        self.last = at
        if math.isfinite(value):
            if value < self.low or self.low_at < 0:
                self.low, self.low_at = value, at
            if value > self.high or self.high_at < 0:
                self.high, self.high_at = value, at

    def join(self, later: Self) -> None:
        """Add all points of a later part of the series."""
        self.last = later.last
        if later.low_at >= 0:
            if later.low < self.low or self.low_at < 0:
                self.low, self.low_at = later.low, later.low_at
            if later.high > self.high or self.high_at < 0:
                self.high, self.high_at = later.high, later.high_at


#: The series of a part of the curve by name, those that appear first before others.
Part: TypeAlias = dict[str, Notable]


def series_of(snapshot: MetricsSnapshot) -> Iterator[tuple[str, float]]:
    """The numbers of a snapshot, by the name of their series.

    Those of a map come by name: a map's own order depends on how it was
    filled, and of too many series those that appear first are kept.
    """
    for descriptor, value in snapshot.ListFields():
        name = descriptor.name
        if name in _MAPS:
            yield from sorted(value.items())
        elif name not in _NO_SERIES:
            yield name, value


def note(part: Part, snapshot: MetricsSnapshot, at: int) -> None:
    """Add the next snapshot, which is at the place `at`, to a part."""
    for name, value in series_of(snapshot):
        notable = part.get(name)
        if notable is None:
            if len(part) == MAX_SERIES:
                continue
            notable = part[name] = Notable(at, at)
        notable.add(value, at)


class BlockWriter:
    """The one writer of the blocks. It is given every snapshot, in order, once it is written."""

    def __init__(self, directory: Path, *, snapshots: int) -> None:
        """`snapshots` is how many there are; the first to be given is `number` + 1."""
        self._journal = _open(directory / "blocks")
        if self._journal.number * BLOCK > snapshots:
            # The snapshots lost their end in a power cut: what is told of it is wrong.
            self._journal.close()
            (directory / "blocks").unlink()
            index_path(directory / "blocks").unlink()
            self._journal = _open(directory / "blocks")
        self.number = self._journal.number * BLOCK
        self._part: Part = {}
        self._whole: list[tuple[int, bytes]] = []

    def add(self, snapshot: MetricsSnapshot, at: int) -> None:
        """Take note of the next snapshot, which is at the place `at`."""
        note(self._part, snapshot, at)
        self.number += 1
        if self.number % BLOCK == 0:
            self._whole.append((0, _encode(self._part)))
            self._part = {}
            # On a full disk it is tried again with the next block.
            with suppress(OSError):
                self._journal.append(self._whole)
                self._whole.clear()

    def close(self) -> None:
        """Close the files."""
        self._journal.close()


def read_blocks(directory: Path, *, snapshots: int) -> Iterator[Part]:
    """The parts that are whole blocks of the first `snapshots` snapshots, from the start.

    Blocks that have not been written yet are left out at the end.
    """
    try:
        journal = JournalReader(directory / "blocks", tag=_TAG)
    except FileNotFoundError:
        return
    with journal:
        cursor, most = Cursor(), snapshots // BLOCK
        while cursor.number < most:
            piece = journal.read(cursor, limit=most - cursor.number)
            if not piece.count:
                return
            for payload in piece.payloads():
                yield _decode(payload)
            cursor = piece.cursor


def count_blocks(directory: Path) -> int:
    """How many blocks have been written."""
    try:
        with JournalReader(directory / "blocks", tag=_TAG) as journal:
            return journal.last()
    except FileNotFoundError:
        return 0


def _open(path: Path) -> JournalWriter:
    return JournalWriter(path, tag=_TAG, class_of=lambda _: 0)


def _encode(part: Part) -> bytes:
    """A part as a record. Names with many bytes may not all fit: those that appear last go."""
    names = list(part)
    while True:
        record = orjson.dumps({name: _places(part[name]) for name in names})
        if len(record) <= MAX_PAYLOAD:
            return record
        names = names[: len(names) // 2]


def _places(notable: Notable) -> list[float]:
    places: list[float] = [notable.first, notable.last]
    if notable.low_at >= 0:
        places += [notable.low, notable.low_at, notable.high, notable.high_at]
    return places


def _decode(payload: bytes) -> Part:
    value: dict[str, list[Any]] = orjson.loads(payload)
    return {name: Notable(*places) for name, places in value.items()}
