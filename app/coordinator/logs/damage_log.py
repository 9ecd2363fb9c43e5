"""Logs records that are lost for the operators, once for each job's log and each job's metrics."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import structlog

_log = structlog.get_logger("scaimind.coordinator")

#: Journals of which it is remembered what is lost, and ranges of each.
_MOST: Final = 10_000
_MOST_RANGES: Final = 100


class DamageLog:
    """Counts the journals of which records are lost, and logs each once.

    For use on the event loop alone.
    """

    def __init__(self) -> None:
        #: How many there are, as far as they were read since the start.
        self.journals = 0
        #: What is lost, by job and journal: numbers of the first and the last record.
        self._lost: OrderedDict[tuple[str, str], set[tuple[int, int]]] = OrderedDict()

    def lost(self, job_id: str, journal: str) -> list[tuple[int, int]]:
        """What is known to be lost, as ranges of numbers in any order, which may overlap."""
        return list(self._lost.get((job_id, journal), ()))

    def check(
        self, job_id: str, journal: str, *, after: int, numbers: Sequence[int], through: int
    ) -> None:
        """Take note of what was read of a job's `journal`, "log" or "metrics".

        Records from `after` to `through` were asked for, and `numbers` were there.
        """
        if len(numbers) >= through - after:
            return
        known = after
        for number in (*numbers, through + 1):
            if number > known + 1:
                self.note(job_id, journal, first=known + 1, last=number - 1)
            known = number

    def note(self, job_id: str, journal: str, *, first: int, last: int) -> None:
        """Take note of records that are lost."""
        ranges = self._lost.get((job_id, journal))
        if ranges is not None:
            if len(ranges) < _MOST_RANGES:
                ranges.add((first, last))
            return
        self.journals += 1
        self._lost[job_id, journal] = {(first, last)}
        if len(self._lost) > _MOST:
            self._lost.popitem(last=False)
        _log.error(
            "journal_damaged",
            job_id=job_id,
            journal=journal,
            first_lost=first,
            last_lost=last,
            damaged_journals=self.journals,
        )
