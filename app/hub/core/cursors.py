"""A watcher as the core sees it, and the group that it shares its bytes with."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, Protocol, TypeVar

#: Level that every entry passes.
ALL = 0


class Step(Enum):
    """What a watcher does where there is nothing to send right now."""

    #: Fetch a page behind its position from the coordinator.
    FETCH = "fetch"
    #: It has become live: wait to be woken.
    LIVE = "live"
    #: It is ahead of what this feed has: wait to be woken.
    AHEAD = "ahead"
    #: It has everything that it asked for.
    DONE = "done"


class Cursor(Protocol):
    """A watcher as the core sees it: a base class, and a protocol for what feeds are given.

    The core owns these fields while the watcher is joined.
    """

    __slots__ = ("chunked", "generation", "level", "live", "offset", "until")

    #: Entries of this level and above pass.
    level: int
    #: Whether it takes HTTP/1.1 chunks.
    chunked: bool
    #: Everything up to here was delivered to it. Not kept while it is live.
    offset: int
    #: It is done at this offset; None follows to the end of the log.
    until: int | None
    live: bool
    #: The generation of the log to which `offset` belongs.
    generation: int

    def __init__(self, *, level: int = ALL, chunked: bool = True) -> None:
        self.level = level
        self.chunked = chunked
        self.offset = 0
        self.until = None
        self.live = False
        self.generation = 0


C = TypeVar("C", bound=Cursor)


@dataclass(slots=True)
class Cohort(Generic[C]):
    """Live watchers that get the same bytes."""

    level: int
    chunked: bool
    #: The id of the last event that was written to all members.
    announced: int
    #: When the last event, and when anything at all, was written to all members.
    #: Kept by the driver, in seconds of its clock.
    announced_at: float
    written_at: float
    #: In order of arrival; a dict, since a set has no order and a list no quick removal.
    members: dict[C, None] = field(default_factory=dict)
