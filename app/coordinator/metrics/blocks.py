"""What is notable in each block of a job's metrics: curves are drawn of it without reading all.

A block is BLOCK snapshots, in the order of their sequence numbers. For each
whole block the journal `blocks`, beside the snapshots, has a record: where in
their file the first, the last, the lowest and the highest point of each
series are. Places are enough: a record is read in one piece from its place.

The snapshots are written first and are the truth. A block that is missing is
read from them, and the next writer adds it.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import orjson

from app.coordinator.storage.journal import JournalReader
from app.coordinator.storage.journal_index import index_path
from app.coordinator.storage.journal_writer import JournalWriter
from app.coordinator.storage.records import MAX_PAYLOAD, Cursor, RecordKind
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot

BLOCK: Final = 128
#: Series that are told of in one block, those that appear first.
MAX_SERIES: Final = 288
#: They have no numbers of their own: behind one that is damaged they are made again.
_KIND: Final = RecordKind(0x0A, lambda payload: _decode(payload) is not None, numbered=False)
_MAPS: Final = ("eval_metrics", "extra")
_NO_SERIES: Final = ("sequence", "step", "timestamp")
#: What stands for the steps of a block among its series. No number has this name. Blocks of
#: earlier coordinators are without it.
STEPS: Final = ""


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


def named_numbers(snapshot: MetricsSnapshot, names: frozenset[str]) -> MetricsSnapshot | None:
    """A snapshot with no numbers but those that are named; None if it has none of them."""
    named = MetricsSnapshot(sequence=snapshot.sequence, step=snapshot.step)
    if snapshot.HasField("timestamp"):
        named.timestamp.CopyFrom(snapshot.timestamp)
    found = False
    for descriptor, value in snapshot.ListFields():
        if descriptor.name in _MAPS:
            kept = {name: number for name, number in value.items() if name in names}
            getattr(named, descriptor.name).update(kept)
            found |= bool(kept)
        elif descriptor.name in names and descriptor.name not in _NO_SERIES:
            setattr(named, descriptor.name, value)
            found = True
    return named if found else None


def note(part: Part, snapshot: MetricsSnapshot, at: int) -> None:
    """Add the next snapshot, which is at the place `at`, to a part."""
    for name, value in ((STEPS, snapshot.step), *series_of(snapshot)):
        notable = part.get(name)
        if notable is None:
            if len(part) > MAX_SERIES:
                continue
            notable = part[name] = Notable(at, at)
        notable.add(value, at)


class BlockWriter:
    """The one writer of the blocks. It is given every snapshot, in order, once it is written."""

    def __init__(self, directory: Path, *, snapshots: int) -> None:
        """`snapshots` is how many there are; the first to be given is `number` + 1."""
        self._journal = _open(directory / "blocks")
        lost = self._journal.number * BLOCK > snapshots
        if lost or not have_steps(directory):
            # The snapshots lost their end in a power cut: what is told of it is wrong. Or an
            # earlier coordinator wrote it.
            self._journal.close()
            (directory / "blocks").unlink()
            os.unlink(index_path(directory / "blocks"))
            self._journal = _open(directory / "blocks")
        self.number = self._journal.number * BLOCK
        self._part: Part = {}
        self._whole: list[tuple[int, bytes]] = []

    def add(self, snapshot: MetricsSnapshot, at: int) -> None:
        """Take note of the next snapshot, which is at the place `at`.

        Those between it and the one before are lost.
        """
        while snapshot.sequence - 1 >= (self.number // BLOCK + 1) * BLOCK:
            self._end_block()
        note(self._part, snapshot, at)
        self.number = snapshot.sequence
        if self.number % BLOCK == 0:
            self.number -= 1
            self._end_block()

    def _end_block(self) -> None:
        self.number = (self.number // BLOCK + 1) * BLOCK
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

    Blocks that have not been written yet are left out at the end, and so are all
    behind one that is damaged.
    """
    try:
        journal = JournalReader(directory / "blocks", kind=_KIND)
    except FileNotFoundError:
        return
    with journal:
        cursor, most = Cursor(), snapshots // BLOCK
        while cursor.number < most:
            piece = journal.read(cursor, limit=most - cursor.number)
            if not piece.count:
                return
            for payload in piece.payloads():
                if (part := _decode(payload)) is None:
                    return
                yield part
            cursor = piece.cursor


def have_steps(directory: Path) -> bool:
    """Whether the blocks that there are say which steps they have."""
    with suppress(FileNotFoundError), JournalReader(directory / "blocks", kind=_KIND) as journal:
        first = journal.read(Cursor(), limit=1)
        parts = [_decode(payload) for payload in first.payloads()]
        return all(part is None or STEPS in part for part in parts)
    return True


def count_blocks(directory: Path) -> int:
    """How many blocks have been written."""
    try:
        with JournalReader(directory / "blocks", kind=_KIND) as journal:
            return journal.last()
    except FileNotFoundError:
        return 0


def _open(path: Path) -> JournalWriter:
    return JournalWriter(path, kind=_KIND, class_of=lambda _: 0)


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


def _decode(payload: bytes) -> Part | None:
    """The part that a record is about; None if the record is damaged."""
    try:
        value: dict[str, list[Any]] = orjson.loads(payload)
        return {name: _notable(places) for name, places in value.items()}
    except (ValueError, TypeError, AttributeError):
        return None


def _notable(places: Sequence[Any]) -> Notable:
    """What `_places` made a list of. Raises ValueError or TypeError if it is none such."""
    first, last, *extremes = places
    low, low_at, high, high_at = extremes or (math.inf, -1, -math.inf, -1)
    if not all(type(at) is int and -1 <= at < 2**63 for at in (first, last, low_at, high_at)):
        raise ValueError("a place is no number of bytes")
    return Notable(first, last, float(low), low_at, float(high), high_at)
