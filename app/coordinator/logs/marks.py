"""A log as a picture: levels by stretches of offsets, beginnings of runs, and what is lost."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from app.coordinator.logs import run_starts
from app.coordinator.logs.log import LogReader
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.journal_counts import Counted
from app.coordinator.storage.locks import Locked, locked
from generated.mindcoordinator.v1.logs_pb2 import LogBucket, LogMarks
from generated.mindcoordinator.v1.watch_pb2 import LogRange

#: Ranges of what is lost that are told: the newest.
MOST_MISSING: Final = 1000


def log_marks(
    directory: JobDir, *, buckets: int, known_lost: Sequence[tuple[int, int]] = ()
) -> LogMarks:
    """Draw a log in at most so many buckets. Blocks. Raises IndexLost, OSError.

    What is lost is told as far as it is known without reading the log: what
    its writers found, what lies at the buckets' ends, and `known_lost`.
    """
    with LogReader(directory.log) as log:
        last = log.last_offset()
        parts = min(buckets, last)
        ends = [number * last // parts for number in range(1, parts + 1)]
        counted = log.count_through(ends)
        lost = _ranges([*known_lost, *counted.lost, *log.holes()], last)
        epoch = log.epoch
    return LogMarks(
        epoch=epoch,
        first_offset=min(last, 1),
        last_offset=last,
        buckets=_buckets(ends, counted, lost),
        run_offsets=_run_starts(directory, last),
        missing=[LogRange(first=first, last=end) for first, end in lost[-MOST_MISSING:]],
    )


def _buckets(
    ends: Sequence[int], counted: Counted, lost: Sequence[tuple[int, int]]
) -> Iterable[LogBucket]:
    before: Sequence[int] = (0, 0, 0, 0)
    first = 1
    for end, counts in zip(ends, counted.counts, strict=True):
        debug, info, warning, error = (
            max(now - then, 0) for now, then in zip(counts, before, strict=True)
        )
        yield LogBucket(
            first_offset=first,
            last_offset=end,
            # As which the index counts what writers lost.
            debug=max(debug - _overlap(lost, first, end), 0),
            info=info,
            warning=warning,
            error=error,
        )
        before, first = counts, end + 1


def _overlap(ranges: Sequence[tuple[int, int]], first: int, last: int) -> int:
    return sum(
        max(min(end, last) - max(begin, first) + 1, 0)
        for begin, end in ranges
        if begin <= last and end >= first
    )


def _ranges(ranges: Iterable[tuple[int, int]], last: int) -> list[tuple[int, int]]:
    """Ranges up to `last`, ascending, each with a hole before the next."""
    joined: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        end = min(end, last)
        if first > end:
            continue
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((first, end))
    return joined


def _run_starts(directory: JobDir, last: int) -> list[int]:
    """Of a log of an earlier coordinator they are looked for, and written down where nobody else
    writes the log."""
    known = run_starts.run_starts(directory.log, last=last)
    if known is not None:
        return known
    with suppress(Locked, OSError), locked(directory.lock, wait=False):
        run_starts.keep_found(directory.log)
    found = run_starts.run_starts(directory.log, last=last)
    return run_starts.find(directory.log) if found is None else found
