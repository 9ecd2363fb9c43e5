"""Whether the gateway can do its work: each thing that it depends on, by name."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.tasks.single_flight import SingleFlight

#: Tells what is wrong, in words that may be shown to anyone; None if nothing is.
Check = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something that the gateway depends on."""

    name: str
    #: None where the deployment has no such thing.
    check: Check | None
    #: Whether requests cannot be served without it.
    required: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    dependency: Dependency
    problem: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What all checks found, in the order in which the dependencies were given."""

    findings: tuple[Finding, ...]
    #: When the checks were done, on the readiness' clock, in seconds.
    taken_at: float

    @property
    def ready(self) -> bool:
        """Whether every required dependency is well."""
        return not any(finding.problem for finding in self.findings if finding.dependency.required)


class Readiness:
    """Runs the checks, at most once in `max_age` seconds however often it is asked.

    Those who ask while the checks run share their result.
    """

    def __init__(
        self,
        dependencies: tuple[Dependency, ...],
        *,
        clock: Callable[[], float],
        max_age: float = 1.0,
    ) -> None:
        self._dependencies = dependencies
        self._clock = clock
        self._max_age = max_age
        self._report: Report | None = None
        self._checking = SingleFlight[str, Report]()

    async def report(self) -> Report:
        """Return what the checks find; they run side by side, and each bounds its own time."""
        report = self._report
        if report is not None and self._clock() - report.taken_at < self._max_age:
            return report
        return await self._checking.ask("all", self._check, name="readiness")

    async def close(self) -> None:
        """Cancel checks that are in progress."""
        await self._checking.close()

    async def _check(self) -> Report:
        findings = await asyncio.gather(*(_find(each) for each in self._dependencies))
        self._report = Report(tuple(findings), self._clock())
        return self._report


async def _find(dependency: Dependency) -> Finding:
    check = dependency.check
    return Finding(dependency, None if check is None else await check())
