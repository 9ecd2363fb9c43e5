"""Judges entries by filters, apart from the loop where one may take long."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from app.hub.core.judging import Judging, Unjudged, judging_of, verdicts
from app.log_filter import LogFilter


class Judge:
    """The threads in which regular expressions are searched; owned by the hub.

    RE2 lets other threads run meanwhile. They are few, so that the expressions of
    some wait for those of others, and nothing else does. They take turns: one that
    is slow has a thread for no longer than a slice, or an entry.
    """

    THREADS = 2
    #: Entries that are judged in one go, and seconds after which none is begun in a thread.
    SLICE = 100
    SECONDS = 0.02

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(self.THREADS, thread_name_prefix="hub-filter")

    async def verdicts(
        self, log_filter: LogFilter, entries: Sequence[Unjudged]
    ) -> list[tuple[int, bool]]:
        """Return whether each of the entries passes, by its offset."""
        apart = judging_of(log_filter) is Judging.APART
        said: list[tuple[int, bool]] = []
        while len(said) < len(entries):
            part = entries[len(said) : len(said) + self.SLICE]
            if apart:
                passed = await self._loop.run_in_executor(
                    self._threads, self._judge_some, part, log_filter
                )
            else:
                [passed] = verdicts(part, [log_filter])
                await asyncio.sleep(0)  # others have their turn
            said += zip((each.offset for each in part), passed, strict=False)
        return said

    def _judge_some(self, entries: Sequence[Unjudged], log_filter: LogFilter) -> list[bool]:
        """Judge the first of some entries, as long as the time lasts; one at least."""
        until = self._clock() + self.SECONDS
        passed: list[bool] = []
        for entry in entries:
            passed += verdicts([entry], [log_filter])[0]
            if self._clock() >= until:
                break
        return passed

    def close(self) -> None:
        """Begin nothing more. What is being judged takes a moment longer."""
        self._threads.shutdown(wait=False, cancel_futures=True)
