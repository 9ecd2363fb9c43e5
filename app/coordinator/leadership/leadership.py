"""What a coordinator asks before it acts: whether it still leads, and for which term."""

from typing import Protocol

from typing_extensions import override


class Leadership(Protocol):
    """A coordinator's right to change jobs, and what belongs to them."""

    @property
    def term(self) -> int:
        """A number that is higher than that of every coordinator that has led before."""

    def check(self) -> None:
        """Raise LeadershipLost unless this coordinator leads. Does not block; any thread may
        call it."""

    def lose(self, reason: str) -> None:
        """End it at once, for a reason that is logged: it may be somebody else's. Any thread
        may call it."""


class SoleLeadership(Leadership):
    """That of a coordinator which holds the lock of its data directory: nobody can take it."""

    def __init__(self, term: int) -> None:
        """`term` is that of the last take-over in the data directory, 0 if there was none."""
        self._term = term

    @property
    @override
    def term(self) -> int:
        return self._term

    @override
    def check(self) -> None:
        return

    @override
    def lose(self, reason: str) -> None:
        raise RuntimeError(f"nobody else can lead: {reason}")
