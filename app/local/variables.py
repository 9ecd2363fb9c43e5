"""The variables that each program of the stack reads; its sections are imported when asked for."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from app.configuration.section import Section

Program: TypeAlias = Literal["gateway", "coordinator", "issuer"]
PROGRAMS: Final[tuple[Program, ...]] = ("gateway", "coordinator", "issuer")


def variables_of(program: Program) -> frozenset[str]:
    """Return every variable of the program's settings, former names and files of secrets too."""
    return frozenset(name for section in _sections(program) for name in section.variables())


def given_to(program: Program, environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what only others of the programs read.

    What is none's stays, so that the program can name it in its log.
    """
    others = frozenset[str]().union(*(variables_of(each) for each in PROGRAMS if each != program))
    foreign = others - variables_of(program)
    return {name: value for name, value in environ.items() if name not in foreign}


def _sections(program: Program) -> Sequence[type[Section]]:
    match program:
        case "gateway":
            from app.gateway.settings import SECTIONS

            return tuple(SECTIONS.values())
        case "coordinator":
            from app.coordinator.settings.coordinator import CoordinatorConfig
            from app.telemetry.settings import TelemetrySettings

            return (CoordinatorConfig, TelemetrySettings)
        case "issuer":
            from app.database.settings import DatabaseSettings
            from app.issuer.settings import IssuerSettings
            from app.telemetry.settings import TelemetrySettings

            return (IssuerSettings, DatabaseSettings, TelemetrySettings)
