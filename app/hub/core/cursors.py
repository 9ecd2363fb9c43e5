"""A watcher as the core sees it."""

from enum import Enum
from typing import Protocol, TypeVar

from app.hub.coding.gzip_stream import GzipStream
from app.hub.core.forms import SSE, Form
from app.hub.core.judging import ALL, Judging, judging_of
from app.log_filter import LogFilter


class Step(Enum):
    """What a watcher does where there is nothing to send right now."""

    #: Fetch a page behind its position from the coordinator.
    FETCH = "fetch"
    #: Have the entries behind its position judged, apart from the loop.
    JUDGE = "judge"
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

    __slots__ = (
        "chunked",
        "filter",
        "form",
        "generation",
        "gzip",
        "judging",
        "live",
        "offset",
        "until",
    )

    #: Which entries pass.
    filter: LogFilter
    #: Where they are judged.
    judging: Judging
    form: Form
    #: Whether it takes HTTP/1.1 chunks.
    chunked: bool
    #: Its content coding; None if it is sent everything as it is.
    gzip: GzipStream | None
    #: Everything up to here was delivered to it. Not kept while it is live.
    offset: int
    #: It is done at this offset; None follows to the end of the log.
    until: int | None
    live: bool
    #: The generation of the log to which `offset` belongs.
    generation: int

    def __init__(
        self,
        *,
        log_filter: LogFilter = ALL,
        form: Form = SSE,
        chunked: bool = True,
        gzip: GzipStream | None = None,
    ) -> None:
        self.filter = log_filter
        self.judging = judging_of(log_filter)
        self.form = form
        self.chunked = chunked
        self.gzip = gzip
        self.offset = 0
        self.until = None
        self.live = False
        self.generation = 0


C = TypeVar("C", bound=Cursor)
