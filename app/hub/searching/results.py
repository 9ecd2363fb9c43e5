"""What a search of a log brings, piece by piece."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from app.caller import Caller
from app.log_filter import LogFilter


class Match(NamedTuple):
    """An entry that was found: its offset, and the JSON of the event that tells of it, one line."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """What became known together."""

    epoch: str
    #: From the newest to the oldest.
    matches: Sequence[Match]
    #: Everything from here on has been searched.
    scanned_to: int
    scanned_bytes: int
    #: Why the search is over: `exhausted`, `limit` or `budget`; empty while it goes on.
    end: str = ""


class Searcher(Protocol):
    """The coordinator, as far as searches go."""

    def search(
        self, caller: Caller, job_id: str, *, log_filter: LogFilter, before: int, limit: int
    ) -> AsyncGenerator[Found, None]:
        """Search a log backward, from before an offset on; 0 begins with the newest entry.

        Closing the generator ends the search. What it yields ends with the one that has an
        `end`, or else the search was broken off. Raises `ApiError`.
        """
