"""Logs records that are lost for the operators, once for each job's log and each job's metrics."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import structlog

_log = structlog.get_logger("scaimind.coordinator")

#: Journals that are remembered as told of.
_MOST: Final = 10_000


class DamageLog:
    """Counts the journals of which records are lost, and logs each once.

    For use on the event loop alone.
    """

    def __init__(self) -> None:
        #: How many there are, as far as they were read since the start.
        self.journals = 0
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()

    def check(
        self, job_id: str, journal: str, *, after: int, numbers: Sequence[int], through: int
    ) -> None:
        """Take note of what was read of a job's `journal`, "log" or "metrics".

        Records from `after` to `through` were asked for, and `numbers` were there.
        """
        if len(numbers) >= through - after or (job_id, journal) in self._told:
            return
        there = set(numbers)
        first = next(number for number in range(after + 1, through + 1) if number not in there)
        last = next((number for number in numbers if number > first), through + 1) - 1
        self.note(job_id, journal, first=first, last=last)

    def note(self, job_id: str, journal: str, *, first: int, last: int) -> None:
        """Take note of records that are lost."""
        if (job_id, journal) in self._told:
            return
        self.journals += 1
        self._told[job_id, journal] = None
        if len(self._told) > _MOST:
            self._told.popitem(last=False)
        _log.error(
            "journal_damaged",
            job_id=job_id,
            journal=journal,
            first_lost=first,
            last_lost=last,
            damaged_journals=self.journals,
        )
