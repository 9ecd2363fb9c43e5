"""The calls of a part's files: in threads, and again while what fails may pass, for as long as
anybody waits for them.

A store may refuse, be slow, or take a connection and say nothing; a thread that
asks it cannot be ended. So it is told that nobody waits any more, and left to find
that out.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import structlog
from typing_extensions import override

from app.coordinator.engines.agent.run_part import RunPart
from app.coordinator.engines.engine import CannotLaunch, Discard
from app.coordinator.failures import FailureBackoff, is_passing
from app.files.copying import Abandoned

#: Seconds: the longest pause between two tries of what may pass.
_LONGEST_PAUSE: Final = 15.0
#: Seconds that a thread has to find out that nobody waits.
_LEAVE: Final = 5.0
#: Seconds in which a store that takes what it is sent has taken some, at most.
_STILL: Final = 10.0

log = structlog.get_logger("scaimind.coordinator")
_T = TypeVar("_T")


class FileCalls:
    """Those of one part. Everything is on one event loop but the calls themselves."""

    def __init__(self, part: RunPart, *, grace: float = math.inf) -> None:
        """`grace` is how many seconds a run has to stop."""
        self._part = part
        self._grace = grace
        #: What the threads look at.
        self._abandoned = threading.Event()
        #: Nobody waits for the threads either.
        self._left = asyncio.Event()
        #: The run has nothing left to do but to bring away what it wrote.
        self._ended = False
        #: A store that fails is not asked again.
        self._impatient = False
        #: All is dropped that is not away when the grace is over.
        self._late = False
        #: When that is.
        self._over_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        #: When a thread has last asked whether it is still wanted.
        self._heard = time.monotonic()

    @property
    def is_abandoned(self) -> bool:
        """Whether nothing more is done."""
        return self._abandoned.is_set()

    def abandon(self, *, leave_after: float = _LEAVE) -> None:
        """Do nothing more. Threads that do not find that out in some seconds are left."""
        self._abandoned.set()
        loop = asyncio.get_running_loop()
        loop.call_later(min(leave_after, self._grace), self._left.set)

    def limit(self, discard: Discard) -> None:
        """Heed what may be dropped. The first limit in time holds."""
        if discard is Discard.AT_ONCE:
            self._impatient = True
            if self._ended:
                self.abandon()
            elif self._over_at == math.inf:
                self._set_limit(0.0)
        elif discard is not Discard.NOTHING:
            self._late = self._late or discard is Discard.LATE
            if self._over_at == math.inf and self._grace < math.inf:
                self._set_limit(self._grace)

    def run_has_ended(self) -> None:
        """Note that nothing of the run lives any more."""
        self._ended = True
        self._heard = time.monotonic()
        self._check()

    def close(self) -> None:
        """Do nothing more, and have nobody wait for long."""
        self._abandoned.set()
        if self._timer is not None:
            self._timer.cancel()

    async def again(self, do: Callable[[RunPart, threading.Event], _T]) -> _T:
        """Do something in a thread until it does not fail in a way that may pass. Nothing of it
        goes on when this ends, unless a store keeps a thread. Raises CannotLaunch, Abandoned."""
        backoff = FailureBackoff(longest=_LONGEST_PAUSE)
        while True:
            try:
                return await self._in_thread(do)
            except OSError as error:
                reason = error.strerror or str(error)
                if not is_passing(error):
                    raise CannotLaunch(reason) from None
            if self._impatient or self._is_over:
                raise Abandoned
            seconds = backoff.after_failure()
            if backoff.worth_a_line:
                log.warning("files_wait", job_id=self._part.job.job_id, reason=reason)
            if await self._is_unwanted_within(seconds):
                raise Abandoned

    @property
    def _is_over(self) -> bool:
        return time.monotonic() >= self._over_at

    def _set_limit(self, seconds: float) -> None:
        self._over_at = time.monotonic() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        """Leave the threads if that is due."""
        if not self._ended or not self._is_over or self._abandoned.is_set():
            return
        still = time.monotonic() - self._heard
        if self._late or still >= _STILL:
            self.abandon(leave_after=0.0)
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_STILL - still, self._check)

    async def _in_thread(self, do: Callable[[RunPart, threading.Event], _T]) -> _T:
        """Call something in a thread; a cancellation waits for it, but not for long."""
        cancelled = threading.Event()
        loop = asyncio.get_running_loop()
        wanted = _Wanted((self._abandoned, cancelled), self._hear)
        work = loop.run_in_executor(None, do, self._part, wanted)
        left: asyncio.Future[Any] = asyncio.create_task(
            self._left.wait(), name="what nobody waits for"
        )
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise Abandoned
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.wait({work, left}, timeout=_LEAVE, return_when=asyncio.FIRST_COMPLETED)
            raise
        finally:
            left.cancel()
            cancelled.set()
            # Whatever comes of it, nobody asks any more.
            work.add_done_callback(_noted)

    def _hear(self) -> None:
        self._heard = time.monotonic()

    async def _is_unwanted_within(self, seconds: float) -> bool:
        """Wait, unless nobody wants it any more; nothing tells of that here."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._abandoned.is_set() or self._impatient or self._is_over:
                return True
            await asyncio.sleep(0.1)
        return self._abandoned.is_set()


class _Wanted(threading.Event):
    """Set when one of some events is. Whoever asks is heard."""

    def __init__(self, events: tuple[threading.Event, ...], hear: Callable[[], None]) -> None:
        super().__init__()
        self._events = events
        self._hear = hear

    @override
    def is_set(self) -> bool:
        self._hear()
        return any(event.is_set() for event in self._events)

    @override
    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set() or self._events[-1].wait(timeout) or self.is_set()


def _noted(work: asyncio.Future[Any]) -> None:
    if not work.cancelled():
        work.exception()
