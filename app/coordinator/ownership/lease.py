"""The lease by which one of several coordinators leads.

It is in the database, by whose clock it runs out; the holder's own clock, which
counts from the machine's start and through its sleep, has it run out before that. So a
coordinator that was stopped or cut off knows that it no longer leads before
another one can, without asking anybody. What it has begun by then ends with its
process: `lost` is called, and is meant to end it.

A leader whose process has ended leads no longer, whatever is left of its lease: where
its lock shows that (`leader_lock`), another one takes over at once.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from typing_extensions import override

from app.coordinator.database.leader_table import Leader, LeaderTable
from app.coordinator.failures import FailureBackoff, LeadershipLost, StoreUnavailable
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.ownership.leader_lock import LeaderLock, LeaderWatch

#: Of the lease: between two renewals, behind one that has failed, and what the holder counts on.
_RENEWED: Final = 0.2
_TRIED_AGAIN: Final = 0.05
_COUNTED_ON: Final = 0.9

log = structlog.get_logger("scaimind.coordinator")


def seconds_since_boot() -> float:
    """Seconds since the machine's start, with those that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease(Leadership):
    """One coordinator's: it asks for it, holds it, and loses it or gives it back, once."""

    def __init__(
        self,
        table: LeaderTable,
        *,
        seconds: float,
        term_file: TermFile,
        lost: Callable[[str], None],
        readable: int | None = None,
        clock: Callable[[], float] = seconds_since_boot,
    ) -> None:
        """`seconds` is how long the lease lasts unless it is renewed. The leader's lock is beside
        `term_file`. `lost` is called with the reason, by any thread, once. `readable` is that of
        `LeaderTable.take`."""
        self._table = table
        self._seconds = seconds
        self._term_file = term_file
        self._on_loss = lost
        self._readable = readable
        self._clock = clock
        self._term = 0
        #: By the own clock.
        self._deadline = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._backoff = FailureBackoff()
        self._leader_lock = LeaderLock(term_file.path.parent)
        self._leader_watch = LeaderWatch(term_file.path.parent)
        #: Of who leads, at the last look.
        self._leaders_term = 0

    @property
    @override
    def term(self) -> int:
        return self._term

    @override
    def check(self) -> None:
        if not self._term:
            raise LeadershipLost("this coordinator does not lead yet")
        if self._over.is_set():
            raise LeadershipLost("this coordinator no longer leads")
        if self._clock() >= self._deadline:
            self.lose("the lease ran out before it could be renewed")
            raise LeadershipLost("the lease has run out")

    @override
    def lose(self, reason: str) -> None:
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
        log.error("leadership_lost", term=self._term, reason=reason)
        self._on_loss(reason)

    # Asking

    def try_take(self, *, holder: str, address: str) -> Leader | None:
        """Lead if nobody does, and the schema can be read; else return who leads, or did.

        Blocks. Raises StoreUnavailable; OSError, ValueError for the data directory.
        """
        ended = self._leader_watch.has_ended(self._leaders_term)
        asked = self._clock()
        term = self._table.take(
            holder=holder,
            address=address,
            seconds=self._seconds,
            known=self._term_file.read(),
            ended=self._leaders_term if ended else None,
            readable=self._readable,
        )
        if term is None:
            leader = self._table.read()
            self._leaders_term = leader.term
            # Its lock is seen from now on, so that its end can be.
            self._leader_watch.has_ended(leader.term)
            return leader
        self._term, self._deadline = term, asked + _COUNTED_ON * self._seconds
        self._leader_watch.close()
        # From here on no runner obeys the one that has led before.
        self._term_file.raise_to(term)
        self._leader_lock.hold(term)
        log.info("leading", term=term, former_leader_ended=ended)
        return None

    # Holding

    def keep(self) -> None:
        """Renew the lease from now on, in threads of its own."""
        for target, name in ((self._renew_on, "lease"), (self._watch, "lease watch")):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def renew(self) -> bool:
        """Renew it once; whether that was done. Blocks; a failure is logged, and leaves the lease
        to run out."""
        asked = self._clock()
        if asked >= self._deadline:
            self.lose("the lease ran out before it could be renewed")
            return False
        try:
            renewed = self._table.renew(self._term, seconds=self._seconds)
        except StoreUnavailable as error:
            self._backoff.after_failure()
            if self._backoff.worth_a_line:
                log.warning("lease_not_renewed", term=self._term, reason=str(error))
            return False
        self._backoff = FailureBackoff()
        if not renewed:
            self.lose("another coordinator may lead")
            return False
        with self._lock:
            self._deadline = asked + _COUNTED_ON * self._seconds
        return True

    def close(self) -> None:
        """Let another one lead at once. Blocks."""
        held = not self._over.is_set()
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._leader_watch.close()
        if held and self._term:
            try:
                self._table.release(self._term)
            except StoreUnavailable as error:
                log.warning("lease_not_released", term=self._term, reason=str(error))
            # One that was lost stays locked until the process has ended, and all that it does.
            self._leader_lock.close()
        self._table.close()

    def _renew_on(self) -> None:
        pause = _RENEWED
        while not self._over.wait(pause * self._seconds):
            # Its connection may have died silently, and another one is made at once.
            pause = _RENEWED if self.renew() else _TRIED_AGAIN

    def _watch(self) -> None:
        while not self._over.is_set():
            left = self._deadline - self._clock()
            if left <= 0:
                self.lose("the lease ran out before it could be renewed")
                return
            self._over.wait(left)
