"""Whether the gateway can do its work: each thing that it depends on, by name."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

#: Tells what is wrong, in words that may be shown to anyone; None if nothing is.
Check = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks found: a problem, or None, for each dependency."""

    problems: Mapping[str, str | None]
    #: On the readiness' clock, in seconds.
    taken_at: float

    @property
    def ready(self) -> bool:
        """Whether all dependencies are well."""
        return not any(self.problems.values())


class Readiness:
    """Runs the checks, at most once in `max_age` seconds however often it is asked."""

    def __init__(
        self, *, checks: Mapping[str, Check], clock: Callable[[], float], max_age: float = 1.0
    ) -> None:
        self._checks = dict(checks)
        self._clock = clock
        self._max_age = max_age
        self._report: Report | None = None
        self._checking = asyncio.Lock()

    async def report(self) -> Report:
        """Return what the checks find; they run side by side, and each bounds its own time."""
        async with self._checking:
            now = self._clock()
            if self._report is None or now - self._report.taken_at >= self._max_age:
                found = await asyncio.gather(*(check() for check in self._checks.values()))
                self._report = Report(dict(zip(self._checks, found, strict=True)), now)
            return self._report
