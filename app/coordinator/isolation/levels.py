"""How strongly jobs are kept apart from each other and from the machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class Level(StrEnum):
    """From the strongest to the weakest."""

    #: Mount, PID, IPC and user namespaces of its own; where the coordinator is root, a user id too.
    NAMESPACES = "namespaces"
    #: A user id of its own and Landlock. Needs root.
    USER = "user"
    #: Landlock: files, and with Linux 6.12 signals and abstract sockets.
    LANDLOCK = "landlock"
    #: Nothing but the loss of root's capabilities.
    NONE = "none"


#: The setting that takes the strongest level that works.
AUTO: Final = "auto"


def at_least(wanted: str) -> tuple[Level, ...]:
    """The levels to try for a setting, in order: a level that is named, then the stronger ones."""
    levels = tuple(Level)
    if wanted == AUTO:
        return levels
    named = levels.index(Level(wanted))
    return tuple(reversed(levels[: named + 1]))


#: The section `isolation` of a specification that a coordinator without levels wrote.
BEFORE_LEVELS: Final[dict[str, Any]] = {
    "level": Level.LANDLOCK.value,
    "uid": None,
    "network": True,
    "filter": "",
}


@dataclass(frozen=True, slots=True)
class UidRange:
    """User ids, first and last."""

    first: int
    last: int

    def __str__(self) -> str:
        """As the setting has it."""
        return f"{self.first}-{self.last}"

    @property
    def uids(self) -> range:
        """All of them."""
        return range(self.first, self.last + 1)


@dataclass(frozen=True, slots=True)
class Isolation:
    """What the machine offers, as it was found at the start."""

    level: Level
    #: The program that makes the namespaces; empty below that level.
    bwrap: str = ""
    #: User ids for jobs; empty where jobs run as the coordinator's user.
    uids: range = range(0)
    #: A seccomp filter as the kernel reads it, in base64; empty without one.
    filter: str = ""
    #: Why a stronger level is not used.
    refused: Mapping[Level, str] = field(default_factory=dict)
    #: What is missing within the level, for the operators.
    gaps: tuple[str, ...] = ()

    @property
    def parts_tenants(self) -> bool:
        """Whether it keeps what one tenant's job does from the others."""
        return self.level in (Level.NAMESPACES, Level.USER)

    def describe(self) -> str:
        """The level, with the program and the users, in one line."""
        parts = [self.level.value]
        if self.bwrap:
            parts.append(f"by {self.bwrap}")
        if self.uids:
            parts.append(f"as users {self.uids.start} to {self.uids[-1]}")
        return " ".join(parts)

    def section(self, *, uid: int | None, network: bool, shared_memory: int) -> dict[str, Any]:
        """The section `isolation` of a run's specification, but for its paths."""
        return {
            "level": self.level.value,
            "bwrap": self.bwrap,
            "uid": uid,
            "network": network,
            "shared_memory": shared_memory,
            "filter": self.filter,
        }
