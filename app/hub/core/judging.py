"""Whether entries pass a filter, and where that is found out.

A level is known with the entry. Anything else is read from the entry's JSON,
and a regular expression may take so long for one line that the loop must not
wait for it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

import orjson

from app.log_filter import LogFilter

#: Filter that every entry passes.
ALL: Final = LogFilter()

_EPOCH: Final = datetime(1970, 1, 1)


class Judging(Enum):
    """Where a filter's entries are judged."""

    #: The level says all.
    BY_LEVEL = "by_level"
    #: On the loop: it takes microseconds.
    AT_ONCE = "at_once"
    #: In a thread: a line may take a tenth of a second.
    APART = "apart"


class Unjudged(NamedTuple):
    """An entry to be judged: its offset, its level and its JSON."""

    offset: int
    level: int
    data: bytes


def judging_of(log_filter: LogFilter) -> Judging:
    """Return where the entries of a filter are judged."""
    if log_filter.matches:
        return Judging.APART
    if (
        log_filter.contains
        or log_filter.ranks
        or log_filter.sources
        or log_filter.since is not None
        or log_filter.until is not None
    ):
        return Judging.AT_ONCE
    return Judging.BY_LEVEL


def verdicts(entries: Iterable[Unjudged], filters: Sequence[LogFilter]) -> list[list[bool]]:
    """Judge entries, each read once: for each filter, in order, whether each entry passes."""
    found: list[list[bool]] = [[] for _ in filters]
    timed = any(each.since is not None or each.until is not None for each in filters)
    for entry in entries:
        told = orjson.loads(entry.data)
        timestamp_ns = _nanoseconds(told.get("timestamp")) if timed else 0
        message, source, rank = told.get("message", ""), told.get("source", ""), told.get("rank", 0)
        for each, passed in zip(filters, found, strict=True):
            passed.append(
                each.passes(
                    level=entry.level,
                    message=message,
                    source=source,
                    rank=rank,
                    timestamp_ns=timestamp_ns,
                )
            )
    return found


def _nanoseconds(text: str | None) -> int:
    """Nanoseconds since 1970 of a time as entries have it (UTC); 0 if it is not known."""
    if not text:
        return 0
    fraction = text[20:-1]
    return _seconds(text[:19]) * 1_000_000_000 + (int(fraction.ljust(9, "0")) if fraction else 0)


@lru_cache(maxsize=1024)
def _seconds(text: str) -> int:
    since = datetime.fromisoformat(text) - _EPOCH
    return since.days * 86_400 + since.seconds
