"""Readings of the memory of a run, which may change while it is read."""

import random
import time
from dataclasses import dataclass
from typing import Final

from app.coordinator.resources import usage

#: A reading that misses processes is taken anew at once: so often, and for so many seconds.
_ATTEMPTS: Final = 20
_AT_MOST: Final = 0.2
#: Readings between two looks for memory without a name.
_SELDOM: Final = 5


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """What was seen."""

    #: Bytes. What could not be over the limit is only estimated from above.
    used: int
    #: Whether no process ended while it was read: else more may be in use.
    complete: bool
    #: What there is too much of to be looked at; empty if all was.
    too_many: str = ""


class MemoryReader:
    """Reads the memory of what is below a process."""

    def __init__(self, first_pid: int, *, limit: int, own_shared_memory: bool) -> None:
        """`limit` is in bytes; `own_shared_memory` tells that its `/dev/shm` is its alone."""
        self._first_pid = first_pid
        self._limit = limit
        self._own_shared_memory = own_shared_memory
        self._taken = 0
        self._unnamed = usage.Unnamed(0, "", 0)

    def take(self, tasks: usage.Tasks, *, most: int, thorough: bool) -> MemoryReading:
        """Read the memory of `tasks`, and of those that are there instead if some ended meanwhile.

        `most` is how many tasks are looked at; `thorough` looks for memory
        without a name, which else is done now and then. Of several attempts
        the largest use counts.
        """
        until = time.monotonic() + _AT_MOST
        thorough = thorough or self._taken % _SELDOM == 0
        self._taken += 1
        reading = self._read(tasks, thorough=thorough)
        for _ in range(_ATTEMPTS - 1):
            if reading.complete or reading.used > self._limit or time.monotonic() > until:
                break
            tasks = usage.tasks_below(self._first_pid, most=most)
            again = self._read(tasks, thorough=True)
            reading = MemoryReading(
                max(reading.used, again.used), again.complete, again.too_many or reading.too_many
            )
        return reading

    def _read(self, tasks: usage.Tasks, *, thorough: bool) -> MemoryReading:
        resident = usage.resident(tasks.pids)
        gone = tasks.gone + resident.gone
        if thorough:
            # A job knows the order of its processes, and could put what it hides behind the bound.
            start = random.randrange(len(resident.pids) or 1)
            self._unnamed = usage.unnamed_memory(resident.pids[start:] + resident.pids[:start])
            gone += self._unnamed.gone
        files = self._unnamed.size
        if self._own_shared_memory:
            files += usage.shared_memory_bytes(self._first_pid)
        used = resident.size + files
        if used > self._limit:
            share = usage.proportional_share(resident.pids)
            gone += share.gone
            # Files in memory that are mapped are in both.
            used = share.anonymous + max(share.shared, files)
        return MemoryReading(used, not gone, self._unnamed.too_many)
