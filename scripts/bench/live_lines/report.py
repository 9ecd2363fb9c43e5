"""What the hops of lines took, from the notes of the programs."""

import itertools
import statistics
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from scripts.bench.live_lines import hops
from scripts.bench.live_lines.hops import UNKNOWN, Note

#: What a line has passed, behind what it passed before, by engine.
_ENDS: Final = ("the runner has read it", "a watcher has it")
_BETWEEN: Final = {
    "local": {
        hops.JOURNAL: "it is in the runner's journal",
        hops.NOTICED: "the coordinator is told so",
        hops.TAKEN: "it is read for a watcher",
    },
    "ray": {
        hops.JOURNAL: "it is in the runner's journal",
        hops.NOTICED: "the agent is told so",
        hops.LOOKED: "the agent looks",
        hops.READ: "the agent has read it",
        hops.RECEIVED: "the coordinator has received it",
        hops.THREAD: "a thread takes it",
        hops.STORED: "it is in the job's log",
        hops.TOLD: "its watchers are told",
        hops.TAKEN: "it is read for a watcher",
    },
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A line as a watcher got it. Times are nanoseconds since 1970."""

    job_id: str
    offset: int
    written: int
    read: int
    seen: int

    @property
    def delay(self) -> float:
        """Milliseconds."""
        return (self.seen - self.written) / 1e6


def table(engine: str, lines: Iterable[Seen], notes: Iterable[Note]) -> list[tuple[str, float]]:
    """Return the hops, and the median of the microseconds that each took."""
    by_hop: defaultdict[tuple[int, str], list[Note]] = defaultdict(list)
    for note in sorted(notes, key=lambda note: note.at):
        by_hop[note.hop, note.job_id].append(note)
    names = _BETWEEN[engine]
    took: list[list[int]] = [[] for _ in range(len(names) + 2)]
    for line in lines:
        at = [line.written, line.read]
        shifts = by_hop[hops.SHIFT, line.job_id]
        shift = shifts[-1].number if shifts else 0
        for hop in names:
            number = line.offset - (0 if hop in hops.BY_OFFSET else shift)
            if (moment := _passed(by_hop[hop, line.job_id], number, at[-1])) is None:
                break
            at.append(moment)
        else:
            at.append(line.seen)
            for place, (before, after) in enumerate(itertools.pairwise(at)):
                took[place].append(after - before)
    labels = (_ENDS[0], *names.values(), _ENDS[1])
    return [
        (label, statistics.median(each) / 1e3 if each else float("nan"))
        for label, each in zip(labels, took, strict=True)
    ]


def _passed(notes: Sequence[Note], number: int, after: int) -> int | None:
    """When a line passed a hop, which it did not before `after`; None if nobody noted it."""
    if notes and notes[0].number == UNKNOWN:
        place = bisect_left(notes, after, key=lambda note: note.at)
    else:
        place = bisect_left(notes, number, key=lambda note: note.number)
    return notes[place].at if place < len(notes) else None
