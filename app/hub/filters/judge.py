"""Judges entries by filters, apart from the loop where one may take long."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from app.hub.core.judging import Judging, Unjudged, judging_of, verdicts
from app.log_filter import LogFilter


class Judge:
    """The threads in which regular expressions are searched; owned by the hub.

    RE2 lets other threads run meanwhile. They are few, so that the expressions of
    some wait for those of others, and nothing else does.
    """

    THREADS = 2
    #: Entries that are judged in one go.
    SLICE = 100

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(self.THREADS, thread_name_prefix="hub-filter")

    async def verdicts(
        self, log_filter: LogFilter, entries: Sequence[Unjudged]
    ) -> list[tuple[int, bool]]:
        """Return whether each of the entries passes, by its offset."""
        apart = judging_of(log_filter) is Judging.APART
        said: list[tuple[int, bool]] = []
        for start in range(0, len(entries), self.SLICE):
            part = entries[start : start + self.SLICE]
            if apart:
                [passed] = await self._loop.run_in_executor(
                    self._threads, verdicts, part, [log_filter]
                )
            else:
                [passed] = verdicts(part, [log_filter])
                await asyncio.sleep(0)  # others have their turn
            said += zip((each.offset for each in part), passed, strict=True)
        return said

    def close(self) -> None:
        """Begin nothing more. What is being judged takes a moment longer."""
        self._threads.shutdown(wait=False, cancel_futures=True)
