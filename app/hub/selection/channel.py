"""What a reader needs of the jobs that it follows."""

from collections.abc import Callable
from typing import Protocol, Self, TypeAlias

from app.hub.selection.places import LogPlace


class Channel(Protocol):
    """A followed job's log and metrics, from a place of its own."""

    job_id: str

    @property
    def place(self) -> LogPlace | None:
        """Return what was delivered; None where that is not known yet."""

    @property
    def due(self) -> float | None:
        """Return when there will be something that has to wait now; None if nothing has to."""

    def listen(self, on_news: Callable[[], None]) -> None:
        """Call this when there may be something to read."""

    def next(self, most: int, now: float, *, pass_over: bool) -> bytes:
        """Return events of about `most` bytes at most, which count as delivered; maybe none.

        Where it had everything once, and the gateway has forgotten since what
        comes next, it is read from the coordinator, or passed over.
        """

    def same_place(self, other: Self) -> bool:
        """Whether both get the same from now on."""

    def fork(self) -> Self:
        """Return another one at the same place."""

    def close(self) -> None:
        """Read no more."""


#: Opens a job's channel behind a place, or at its beginning.
OpenChannel: TypeAlias = Callable[[str, LogPlace | None], Channel]
