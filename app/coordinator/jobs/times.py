"""How long something has taken, whatever becomes of the machine's clock meanwhile.

A time of day is for people, and for what is asked in it (`not_before`). It may
be set forward or back at any moment, so nothing is measured by it. What is
measured is measured by a clock that nobody sets: it counts from the machine's
start, and stands still while the machine sleeps.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.coordinator.storage.process_identity import read_boot_id

#: Microseconds: how far times of creation may be ahead of the clock to keep their order.
MOST_AHEAD: Final = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of the steady clock: `micros` since the machine's start `boot`."""

    boot: str
    micros: int


def steady_micros() -> int:
    """Microseconds since the machine's start, without those that it slept."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Measures, by moments that outlive the process."""

    boot: str
    #: Microseconds since the machine's start.
    micros: Callable[[], int]

    def now(self) -> Moment:
        """This moment."""
        return Moment(self.boot, self.micros())

    def since(self, moment: Moment) -> int:
        """Microseconds since a moment of this start of the machine; 0 since any other."""
        if moment.boot != self.boot:
            return 0
        return max(self.micros() - moment.micros, 0)

    def has(self, moment: Moment | None) -> bool:
        """Whether a moment is one of this start of the machine."""
        return moment is not None and moment.boot == self.boot

    def ago(self, micros: int) -> Moment:
        """The moment so long ago as two times of day say, which may have been set meanwhile.

        It is not before the machine's start, nor in the future.
        """
        now = self.micros()
        return Moment(self.boot, now - min(max(micros, 0), now))


def this_stopwatch() -> Stopwatch:
    """The one of this machine."""
    return Stopwatch(read_boot_id(), steady_micros)


def creation_time(now: int, newest: int) -> int:
    """When something is said to be made that was made `now`, after all others.

    It is behind the newest of them: their order by time is that in which they were made, though
    the clock was set back by up to MOST_AHEAD. Microseconds since 1970.
    """
    return now if newest - now > MOST_AHEAD else max(now, newest + 1)
