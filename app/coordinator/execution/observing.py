"""Looks at what a run reports by itself: its numbers and its checkpoints.

Nothing depends on it. A look that fails pauses that part alone for a while
that grows; the run goes on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol

import structlog

from app.coordinator.failures import FailureBackoff, is_passing, reason_of
from app.coordinator.scheduling.scheduler import SchedulerEvent

#: Seconds: the longest pause of a part that keeps failing.
_LONGEST_PAUSE: Final = 60.0

log = structlog.get_logger("scaimind.coordinator")


class Look(Protocol):
    """Looks at one part of a run. Runs in a thread, one look of a run at a time."""

    def __call__(self, notes: list[str], *, last: bool) -> SchedulerEvent:
        """Look, which may block. Returns the change that follows from what is there.

        What the job's log is to say is added to `notes`. `last` is the look
        when the run is over.
        """


class Observer:
    """Looks at one run, part by part."""

    def __init__(
        self,
        job_id: str,
        *,
        parts: Mapping[str, Look],
        executor: Executor,
        event: Callable[[SchedulerEvent], Awaitable[None]],
        apart: Mapping[str, Executor] = MappingProxyType({}),
    ) -> None:
        """`parts` are named as they are called in the job's log, such as "Its checkpoints". Those
        in `apart` have an executor of their own."""
        self._job_id = job_id
        self._parts = parts
        self._executors = {name: apart.get(name, executor) for name in parts}
        self._event = event
        self._backoffs: dict[str, FailureBackoff] = {}
        self._paused_until: dict[str, float] = {}
        self._told: set[str] = set()
        self._noted: set[str] = set()
        #: What is to be said in the job's log once it can be, each part's first failure with it.
        self.notes: list[str] = []

    def note(self, sentences: Sequence[str]) -> None:
        """Have the job's log say these, each once in a run."""
        self.notes += [each for each in dict.fromkeys(sentences) if each not in self._noted]
        self._noted.update(sentences)

    async def look(self, *, last: bool = False) -> None:
        """Look at all parts that are not paused; with `last`, at those, too."""
        for name, look in self._parts.items():
            if last or time.monotonic() >= self._paused_until.get(name, 0.0):
                found: list[str] = []
                await self._look_at(name, partial(look, found, last=last))
                self.note(found)

    async def _look_at(self, name: str, look: Callable[[], SchedulerEvent]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._event(await loop.run_in_executor(self._executors[name], look))
        except Exception as error:  # whatever a script left behind: the run goes on
            self._pause(name, error)
        else:
            self._backoffs.pop(name, None)
            self._paused_until.pop(name, None)

    def _pause(self, name: str, error: Exception) -> None:
        backoff = self._backoffs.setdefault(name, FailureBackoff(longest=_LONGEST_PAUSE))
        self._paused_until[name] = time.monotonic() + backoff.after_failure()
        if backoff.worth_a_line:
            log.warning(
                "job_not_observed",
                job_id=self._job_id,
                part=name,
                failures=backoff.failures,
                exc_info=error,
            )
        if name not in self._told and not is_passing(error):
            self._told.add(name)
            self.note(
                [
                    f"{name} could not be read for part of the time ({reason_of(error)})."
                    " The run was not affected."
                ]
            )
